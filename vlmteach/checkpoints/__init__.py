"""Checkpoints before they are loaded: found, their files looked at, and refused in one line."""
