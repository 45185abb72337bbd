"""What happens in a task, one file a kind of change: drawn with flaws, measured by rules."""
