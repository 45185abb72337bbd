"""`python -m benchmarks.floor` moved."""

from vlmteach.moved import refuse

if __name__ == "__main__":
    refuse("benchmarks.floor", "benchmarks.speed.floor")
