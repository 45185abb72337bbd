"""One instance of a run as a picture: the base's clip above the fitted one, and the truth below.

    python -m benchmarks.mini.strip runs/first test/detour/5795967421726 strip.png

Each row says what the teacher's P("Yes") was for the goal query (on the first-step prediction, as
in the fit), and what the rules say of the clip where the sample tells by which rules.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from vlmteach import exits
from vlmteach.frames import uniform_frames
from vlmteach.instances import read_held_out
from vlmteach.ledger import folder_name
from vlmteach.mini.rule_scores import RuleScore, rule_scores
from vlmteach.record import read_json
from vlmteach.video import read_video

if TYPE_CHECKING:
    from torch import Tensor


COLUMNS = 5
"""Frames of a row, uniformly spread, the first and the last included."""
SIDE = 128
"""Pixels of a frame's longer side in the picture."""
LABEL = 176
"""Pixels of the column of words."""
GAP, LETTERS = 6, 17
PAPER, INK, GREY = (255, 255, 255), (31, 35, 40), (101, 109, 118)
GOOD, BAD = (26, 127, 55), (207, 34, 46)


@dataclass(frozen=True, slots=True)
class Row:
    """A clip and the words beside it."""

    name: str
    frames: Tensor
    """uint8 [T, H, W, 3]."""
    p_yes: float | None
    """The teacher's, for the goal query; None where it was not asked."""
    score: RuleScore | None
    """By the rules; None where there are none."""


def rows_of(run: Path, key: str, instances: Sequence[str]) -> list[Row]:
    """The rows of one finished instance: base, fitted, and the truth where the sample holds it.

    Args:
        run: output folder of a micro-fit.
        key: the instance's.
        instances: what the run was given; read for rules and truth.

    Raises:
        OSError: a folder, record or clip that is not there.
    """
    folder = run / folder_name(key)
    record = read_json(folder / "fit.json")
    goal = next(
        (i for i, query in enumerate(record["queries"]["queries"]) if query["role"] == "goal"), None
    )
    p_yes = {reading["step"]: reading["p_yes"] for reading in record["readings"]}

    def asked(step: int | None) -> float | None:
        return p_yes[step][goal] if goal is not None and p_yes.get(step) else None

    scores = rule_scores(instances, run).get(key)
    rows = [
        Row("base", read_video(folder / "base.mp4")[0], asked(0), scores and scores.before),
        Row(
            f"after {record['kept_step']} updates",
            read_video(folder / "clip.mp4")[0],
            asked(record["kept_step"]),
            scores and scores.after,
        ),
    ]
    held = next((held for held in read_held_out(instances) if held.key == key), None)
    if held is not None and held.ground_truth_mp4 is not None:
        rows.append(Row("truth", read_video(held.ground_truth_mp4)[0], None, None))
    return rows


def draw(rows: Sequence[Row], title: str) -> Image.Image:
    """The picture: a title, then a row of words and frames per clip.

    Args:
        rows: at least one; their clips may differ in length, not in size.
        title: one line.
    """
    height, width = rows[0].frames.shape[1:3]
    scale = SIDE / max(height, width)
    size = round(width * scale), round(height * scale)
    # Small frames keep their pixels visible; large ones are shrunk smoothly.
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    top = 2 * GAP + LETTERS
    picture = Image.new(
        "RGB",
        (LABEL + COLUMNS * (size[0] + GAP), top + len(rows) * (size[1] + GAP) + LETTERS + GAP),
        PAPER,
    )
    pen = ImageDraw.Draw(picture)
    plain, small = ImageFont.load_default(LETTERS), ImageFont.load_default(LETTERS - 3)
    pen.text((GAP, GAP), title, INK, plain)
    for number, row in enumerate(rows):
        y = top + number * (size[1] + GAP)
        for line, (words, colour) in enumerate(_words(row)):
            pen.text((GAP, y + 8 + line * (LETTERS + GAP)), words, colour, small if line else plain)
        for column, index in enumerate(uniform_frames(len(row.frames), COLUMNS)):
            frame = Image.fromarray(row.frames[index].numpy()).resize(size, resample)
            x = LABEL + column * (size[0] + GAP)
            picture.paste(frame, (x, y))
            pen.rectangle((x, y, x + size[0] - 1, y + size[1] - 1), outline=(208, 215, 222))
    for column, index in enumerate(uniform_frames(len(rows[0].frames), COLUMNS)):
        x = LABEL + column * (size[0] + GAP)
        pen.text((x, picture.height - LETTERS - GAP // 2), f"frame {index}", GREY, small)
    return picture


def _words(row: Row) -> list[tuple[str, tuple[int, int, int]]]:
    words = [(row.name, INK)]
    if row.p_yes is not None:
        words.append((f"teacher: P(yes) {row.p_yes:.2f}", GREY))
    if row.score is not None:
        verdict, colour = ("solved", GOOD) if row.score.strict else ("not solved", BAD)
        words += [(f"rules: {row.score.overall:.2f}", GREY), (verdict, colour)]
    return words


def main(words: Sequence[str]) -> int:
    """Writes the picture; the exit code is 0, or 2 where something is missing."""
    cli = argparse.ArgumentParser(prog="python -m benchmarks.mini.strip", description=__doc__)
    cli.add_argument("run", type=Path, help="output folder of a micro-fit")
    cli.add_argument("key", help="the instance's key, as in results.jsonl")
    cli.add_argument("out", type=Path, help="a PNG file")
    cli.add_argument("--instances", nargs="+", default=["demo.tar"], help="what the run was given")
    options = cli.parse_args(words)
    try:
        rows = rows_of(options.run, options.key, options.instances)
        record = read_json(options.run / folder_name(options.key) / "queries.json")
    except (OSError, ValueError) as error:
        return exits.refused(error)
    draw(rows, record["goal"] or "").save(options.out, optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
