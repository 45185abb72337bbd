"""Measurements of vlmteach, each a command."""
