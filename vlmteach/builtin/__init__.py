"""Small randomly initialised checkpoints in the on-disk layouts of the real ones."""
