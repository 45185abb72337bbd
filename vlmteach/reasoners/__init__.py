"""Video models: a protocol, and one file or more a family."""
