"""Presets: one YAML file each, opening with the command that runs it."""
