"""VBVR-Bench: finished runs into the tree its EvalKit reads, scored by it, reported."""
