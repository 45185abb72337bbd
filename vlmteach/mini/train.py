"""`python -m vlmteach.mini.train` moved: a recipe is no library."""

from vlmteach.moved import refuse

if __name__ == "__main__":
    refuse("vlmteach.mini.train", "benchmarks.mini.train")
