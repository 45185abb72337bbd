"""What a machine with a GPU does with this code: checked against the CPU, and timed."""
