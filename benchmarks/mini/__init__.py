"""The miniature measured: its sweeps, its oracle, and the recipe of its models."""
