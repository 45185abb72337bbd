"""`python -m benchmarks.oracle` moved: the oracle is a reward."""

from vlmteach.moved import refuse

if __name__ == "__main__":
    refuse("benchmarks.oracle", "vlmteach.fit --reward benchmarks.mini.oracle.PixelError ...")
