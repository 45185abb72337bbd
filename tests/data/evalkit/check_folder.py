"""What the kit would read of a model's folder, by its own rules, against the ground truth."""

import re
from pathlib import Path

SPLITS = ("In-Domain_50", "Out-of-Domain_50")


def check(model, truth):
    """(missing, left over): samples without a video, files that the kit would not read."""
    samples = {
        f"{folder.relative_to(truth).as_posix()}.mp4"
        for split in SPLITS
        for folder in Path(truth).glob(f"{split}/*/*")
    }
    files = {path.relative_to(model).as_posix() for path in Path(model).rglob("*.*")}
    read = {name for name in files if re.fullmatch(r"[^/]+/[^/]+/\d{5}\.mp4", name)} & samples
    return sorted(samples - read), sorted(files - read)
