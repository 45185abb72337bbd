"""Failed instances of a run: drawn by seed, with what was asked and what the teacher said."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks.table.rows import Row, read_rows
from vlmteach.config import Config
from vlmteach.ledger import folder_name
from vlmteach.options import read_config
from vlmteach.queries import queries_from_json
from vlmteach.record import read_json
from vlmteach.report.index import read_index
from vlmteach.seeding import derive_seed
from vlmteach.types import Query

Label = Literal["query", "perception", "neither"]
LABELS: tuple[Label, ...] = get_args(Label)
"""What went wrong: a query that does not ask for the task, the teacher's answer about the clip, or
neither: the right question was answered rightly, and the fit did not get there."""


@dataclass(kw_only=True)
class Case:
    """One failed instance."""

    run: str
    """The run's name in the tables."""
    key: str
    clip: str
    """The delivered clip's path."""
    digest: str
    """sha256 of the clip: a label belongs to these bytes."""
    score: float
    queries: tuple[Query, ...]
    """Those that were asked."""
    p_yes: tuple[float, ...] | None
    """P(yes) of each, as the run recorded it for what it kept, or of the delivered clip where the
    rules label; None where the run recorded none."""
    prompt: str | None = None
    verdicts: tuple[bool | None, ...] = ()
    """The rules' answer to each query; None where they have none."""
    label: Label | None = None
    by: str | None = None
    """Who labelled: `rules`, `person`, or the judge's name."""
    why: str = ""


@dataclass(kw_only=True)
class AuditedRun:
    """A run under audit."""

    name: str
    folder: Path
    config: Config
    scores: dict[str, float]
    """The measure of every scored instance."""
    failed: list[str]
    """Keys of those below the bar, in the order of the draw."""
    cases: list[Case] = field(default_factory=list)


def open_run(
    folder: Path, rows: Sequence[Row] | None, *, measure: str, below: float, seed: int
) -> AuditedRun:
    """Reads a run's scores and puts its failures into the order of the draw.

    Args:
        folder: a run's output folder.
        rows: of any settings; those of this run are taken. None: its own `score.json` files.
        measure: what decides.
        below: an instance has failed when its measure is below this.
        seed: of the draw. An instance's place in it depends on its key alone, so that a larger
            sample holds the smaller one.

    Raises:
        ValueError: the folder is no run, or has no such measure.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"{folder}: got no config.yaml, expected the output folder of a run")
    config = read_config(["--config", str(folder / "config.yaml")])
    setting = setting_of(folder)
    found = read_rows(folder) if rows is None else rows
    mine = [r for r in found if rows is None or r["setting"] == setting]
    mine = [r for r in mine if (folder / folder_name(r["key"]) / "clip.mp4").exists()]
    scores = {row["key"]: float(row[measure]) for row in mine if row.get(measure) is not None}
    if not scores:
        raise ValueError(
            f"{folder}: got no {measure!r} of any clip of the setting {setting!r}, expected rows "
            "with it; score the run first, or name the measure and the file that has it"
        )
    failed = sorted((k for k, s in scores.items() if s < below), key=lambda k: _place(seed, k))
    name = f"{setting}, seed {config.run.seed}"
    return AuditedRun(name=name, folder=folder, config=config, scores=scores, failed=failed)


def _place(seed: int, key: str) -> int:
    return derive_seed(seed, key, "audit")


def setting_of(folder: Path) -> str:
    """The setting a run belongs to by the index of its sweep, else by its folder's name."""
    folder = folder.resolve()
    sweep = folder.parent.parent
    for row in read_index(sweep):
        if sweep / row["folder"] == folder:
            return row["setting"]
    return folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name


def draw(run: AuditedRun, sample: int, prompts: dict[str, str]) -> None:
    """Fills in the cases: the first `sample` failures in the order of the draw.

    A run whose method asks nothing (`base`) has failures and no cases.

    Args:
        run: as `open_run` gives it.
        sample: how many at most.
        prompts: by instance key, where they are known.
    """
    for key in run.failed[:sample]:
        folder = run.folder / folder_name(key)
        if not (folder / "queries.json").exists():
            continue
        written = queries_from_json(read_json(folder / "queries.json"), str(folder))
        asked = written.asked(run.config.query.ask).queries
        clip = folder / "clip.mp4"
        run.cases.append(
            Case(
                run=run.name,
                key=key,
                clip=str(clip),
                digest=hashlib.sha256(clip.read_bytes()).hexdigest(),
                score=run.scores[key],
                queries=asked,
                p_yes=_recorded(folder, len(asked)),
                prompt=prompts.get(key),
            )
        )


def _recorded(folder: Path, count: int) -> tuple[float, ...] | None:
    """P(yes) of what was kept, as the method wrote it down."""
    reading: dict[str, Any] = {}
    if (folder / "fit.json").exists():
        record = read_json(folder / "fit.json")
        kept = (r for r in record["readings"] if r["step"] == record["kept_step"])
        reading = next(kept, {})
    elif (folder / "candidates.json").exists():
        record = read_json(folder / "candidates.json")
        if candidates := record.get("candidates"):
            reading = candidates[record["picked"]]
    p_yes = reading.get("p_yes")
    return tuple(p_yes) if p_yes and len(p_yes) == count else None


def prompts_of(sources: Sequence[str], keys: Iterable[str]) -> dict[str, str]:
    """The prompts of some instances, by key."""
    from vlmteach.instances import InstanceError, decode, read_samples

    wanted, prompts = set(keys), {}
    for raw in read_samples(sources):
        if raw.key in wanted:
            try:
                prompts[raw.key] = decode(raw).prompt
            except InstanceError:  # it was good when the run was made
                continue
    return prompts
