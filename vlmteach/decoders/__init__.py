"""Decoders on the reward path: a protocol, and one file or more a family."""
