"""What the speaker learns to write, and out of what: its words, its lessons, its rows."""
