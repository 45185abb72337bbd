"""A stand-in for VBVR-EvalKit with the same interface."""
