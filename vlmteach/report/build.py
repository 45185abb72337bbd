"""Which pages a folder gets, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vlmteach.record import write_text
from vlmteach.report.index import read_index
from vlmteach.report.read import read_run

PAGE, COMPARISON = "report.html", "comparison.html"
"""The page of a run or a sweep, in its folder; that of several, in the folder they share."""

Named = tuple[str, int, Path]
"""A run of a setting: the setting, the seed, the run's folder."""


def write_report(paths: Sequence[Path]) -> Path:
    """Writes the page of a run; or of a sweep and all its runs; or one that compares several.

    Args:
        paths: output folders of runs or sweeps, at least one.

    Returns:
        The page to open.

    Raises:
        ValueError: a folder that is neither.
        OSError: a page that cannot be written.
    """
    runs = [run for path in paths for run in runs_of(path)]
    for _, _, run in runs:
        write_text(run / PAGE, run_page(run))
    if len(paths) == 1 and runs == [(paths[0].resolve().name, 0, paths[0])]:
        return paths[0] / PAGE
    page = place_of(paths)
    write_text(page, page_of(paths))
    return page


def place_of(paths: Sequence[Path]) -> Path:
    """Where the page of some folders lies: in the one, or in the folder that they share."""
    if len(paths) == 1:
        return paths[0] / PAGE
    return Path(os.path.commonpath([path.resolve() for path in paths])) / COMPARISON


def page_of(paths: Sequence[Path], *, live: bool = False) -> str:
    """The page of some folders as text; see `write_report`.

    Args:
        paths: output folders.
        live: it asks its server for what is new.
    """
    runs = [run for path in paths for run in runs_of(path)]
    if len(paths) == 1 and runs == [(paths[0].resolve().name, 0, paths[0])]:
        return run_page(paths[0], live=live)
    from vlmteach.report.compare import comparison
    from vlmteach.report.page import render

    place = place_of(paths).parent.resolve()
    title = place.name or "comparison"
    found = [(name, seed, run, read_run(run)) for name, seed, run in runs]
    return render("comparison.html", live=live, **comparison(title, place, found))


def run_page(run: Path, *, live: bool = False) -> str:
    """The page of one run."""
    from vlmteach.report.page import render
    from vlmteach.report.summary import run_context

    return render("run.html", live=live, **run_context(run, read_run(run)))


def runs_of(path: Path) -> list[Named]:
    """The runs of a folder: those in a sweep's index that have begun, or the folder itself.

    Raises:
        ValueError: a folder that is neither a run's nor a sweep's.
    """
    indexed = [
        (row["setting"], row["seed"], path / row["folder"])
        for row in read_index(path)
        if is_below(path / row["folder"], path) and (path / row["folder"]).is_dir()
    ]
    if indexed:
        return indexed
    if not ((path / "config.yaml").is_file() or (path / "results.jsonl").is_file()):
        raise ValueError(
            f"{path}: got no config.yaml, results.jsonl or runs.jsonl, expected the output folder "
            "of a run or a sweep; name one"
        )
    return [(path.resolve().name, 0, path)]


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, links followed."""
    return path.resolve().is_relative_to(folder.resolve())
