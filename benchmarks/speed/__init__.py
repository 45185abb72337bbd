"""What an update costs: operations counted, alternatives timed side by side."""
