"""The miniature: a symbolic world, its rules, and the small models trained on it."""
