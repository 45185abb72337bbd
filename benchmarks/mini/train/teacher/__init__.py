"""The teacher of the miniature: its three stages, and what they are made of."""
