"""The recipe of the miniature's models: one stage per file, each a Lightning training on CPU.

`python -m benchmarks.mini.train STAGE --seed S --out DIR` runs a stage; run it again to go on.
"""
