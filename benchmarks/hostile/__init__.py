"""Hostile input given to the real commands, and what came back."""
