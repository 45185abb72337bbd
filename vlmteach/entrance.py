"""The five names of `vlmteach` for Python: load, solve, run, read, apply.

One process, one device; an instance goes the same way as under the commands and gives the same
bits for the same prompt, image, seed and key.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformers.utils import logging

from vlmteach.classes import check_classes
from vlmteach.config import Config
from vlmteach.fit import default_out, source_path
from vlmteach.instances.loose import KEY, instance_of
from vlmteach.kernels import device_named, settled
from vlmteach.launch import Launch
from vlmteach.ledger import DONE, folder_name
from vlmteach.methods import Resources, carry_out, load_method
from vlmteach.methods.base import Review
from vlmteach.methods.kept_adapter import KeptAdapter
from vlmteach.models import Models
from vlmteach.options import read_config
from vlmteach.plan import loaded
from vlmteach.queries import queries_from_json
from vlmteach.record import read_json, write_json
from vlmteach.results import done_row, keep_instance
from vlmteach.rollout import gradient_span
from vlmteach.solved import Made, Solved
from vlmteach.stops import Interruption
from vlmteach.types import Instance, Query, Reading
from vlmteach.video import read_video

if TYPE_CHECKING:
    from PIL.Image import Image

Options = Mapping[str, Any] | Sequence[str]
"""`{"fit.steps": 20}`, or words of a command line: `["--fit.steps", "20"]`."""
Tell = Callable[[Reading], None]
Result = TypeVar("Result", bound=Made)


@dataclass(frozen=True)
class Loaded:
    """A preset's models on one device, ready for any number of instances, one at a time."""

    config: Config
    models: Models = field(repr=False)


def load(
    preset: str | Path | Config = "mini", options: Options = (), *, device: str | None = None
) -> Loaded:
    """Loads and freezes a preset's models.

    Args:
        preset: its name, a YAML file, or a config.
        options: laid over a preset that is named, as on the command line.
        device: as torch names it; None: the first GPU if there is one, else the CPU.

    Raises:
        ValueError: for a preset, an option or a checkpoint that does not fit.
    """
    config = config_of(preset, options)
    check_classes(config)
    gradient_span(config.fit.gradient, len(config.reasoner.ladder))
    with settled(config.run):
        place = device_named(device)
        with _no_bars():
            return Loaded(config, loaded.load(config, place))


def solve(
    models: Loaded,
    prompt: str,
    image: str | Path | Image | None = None,
    *,
    goal: str | None = None,
    process: Sequence[str] = (),
    method: str | None = None,
    out: str | Path | None = None,
    key: str = KEY,
    seed: int | None = None,
    tell: Tell | None = None,
) -> Solved:
    """Solves one instance; shows loss, queries and clips where a notebook displays it.

    Args:
        models: from `load`; its config says how.
        prompt: the task.
        image: the first frame, PNG, JPEG or WebP, or a PIL image; None for text-to-video.
        goal: with `process`, the queries to ask; without both, the teacher writes them.
        process: one to three.
        method: in place of the config's.
        out: a folder for the instance's files; None: a temporary one, gone with the result.
        key: the instance's; all draws derive from seed and key.
        seed: in place of `run.seed`.
        tell: called with each reading.

    Raises:
        ValueError: for an instance these models cannot take, or a folder that holds a result.
        OSError: for an image that cannot be read.
    """
    instance = instance_of(prompt, image, goal=goal, process=process, key=key, seed=seed)
    return solve_one(models, instance, method=method, out=out, tell=tell)


def solve_one(
    models: Loaded,
    instance: Instance,
    *,
    method: str | None = None,
    out: str | Path | None = None,
    tell: Tell | None = None,
    review: Review | None = None,
    interruption: Interruption | None = None,
) -> Solved:
    """As `solve`, of an instance as it was decoded.

    Args:
        models: from `load`; its config says how.
        instance: decoded.
        method: in place of the config's.
        out: a folder for the instance's files; None: a temporary one, gone with the result.
        tell: called with each reading.
        review: sees the queries before they are asked.
        interruption: by which a person may end the fit.
    """
    config = models.config if method is None else replace(models.config, method=method)
    readings: list[Reading] = []

    def note(reading: Reading | None) -> None:
        if reading is not None:
            readings.append(reading)
            if tell is not None:
                tell(reading)

    with _folder(out) as folder, settled(config.run), _collected():
        resources = Resources(config, models.models, {})
        chosen = load_method(config.method, resources)
        keep_instance(folder, instance)
        outcome = carry_out(
            chosen,
            resources,
            instance,
            folder,
            tell=note,
            review=review,
            interruption=interruption,
        )
        write_json(folder / DONE, done_row(outcome))
        frames, fps = read_video(folder / "clip.mp4")
        base = folder / "base.mp4"
        solved = Solved(
            prompt=instance.prompt,
            frames=frames,
            fps=fps,
            folder=folder,
            base=read_video(base)[0] if base.exists() else None,
            queries=_asked(config, folder / "queries.json"),
            readings=tuple(readings),
            outcome=outcome,
        )
    return _kept_with(solved, out)


def apply(
    models: Loaded,
    adapter: str | Path,
    prompt: str,
    image: str | Path | Image | None = None,
    *,
    scale: float = 1.0,
    candidate: int | None = None,
    out: str | Path | None = None,
    key: str = KEY,
    seed: int | None = None,
) -> Made:
    """Samples a clip with an adapter that was kept; nothing is fitted and the teacher not asked.

    With the prompt, image, key and seed it was fitted for, it is the clip of that fit; at scale 0
    the base model's own.

    Args:
        models: from `load`; reasoner, `lora.rank`, `lora.alpha` and `lora.targets` as in the fit.
        adapter: `adapter.safetensors`, or the folder it lies in.
        prompt: the task.
        image: the first frame; None for text-to-video.
        scale: of the adapter.
        candidate: which of the instance's noises to start from; None: the one of the fit.
        out: a folder for `clip.mp4`; None: a temporary one, gone with the result.
        key: the instance's.
        seed: in place of `run.seed`.

    Raises:
        ValueError: for an adapter of another network, rank or targets, an instance these models
            cannot take, or a folder that holds a result.
        OSError: for an image that cannot be read.
    """
    if candidate is not None and (not isinstance(candidate, int) or candidate < 0):
        raise ValueError(f"candidate: got {candidate!r}, expected a whole number from 0")
    instance = instance_of(prompt, image, key=key, seed=seed)
    return apply_to(models, adapter, instance, scale=scale, candidate=candidate, out=out)


def apply_to(
    models: Loaded,
    adapter: str | Path,
    instance: Instance,
    *,
    scale: float = 1.0,
    candidate: int | None = None,
    out: str | Path | None = None,
    ahead: Sequence[str] = (),
) -> Made:
    """As `apply`, of an instance as it was decoded; `ahead` are the next ones' prompts."""
    method = KeptAdapter(Path(adapter), scale, candidate)
    resources = Resources(models.config, models.models, {})
    with _folder(out) as folder, settled(models.config.run):
        outcome = carry_out(method, resources, instance, folder, ahead=ahead)
        frames, fps = read_video(folder / "clip.mp4")
        made = Made(prompt=instance.prompt, frames=frames, fps=fps, folder=folder, outcome=outcome)
    return _kept_with(made, out)


def run(
    sources: str | Path | Sequence[str | Path],
    preset: str | Config = "mini",
    out: str | Path | None = None,
    options: Options = (),
    *,
    queries: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Solves every instance of some sources that has no result yet, in this process.

    Args:
        sources: tars, brace patterns or folders; `builtin:demo.tar` is a dozen small tasks.
        preset: its name, a YAML file, or a config.
        out: the output folder; None: `runs/` and the name of the first source.
        options: laid over a preset that is named, as on the command line.
        queries: a JSONL file used instead of the teacher's own queries.

    Returns:
        As `read`.

    Raises:
        ValueError: for a run that cannot start, before anything is written or loaded.
    """
    from vlmteach.job import Job
    from vlmteach.runner import run as run_job

    several = [sources] if isinstance(sources, str | Path) else sources
    names = tuple(source_path(str(source)) for source in several)
    config = config_of(preset, options)
    if config.run.instances_at_once > 1:
        raise ValueError(
            f"run.instances_at_once: got {config.run.instances_at_once}, expected 1 in a run from "
            "Python, which is one process; use `vlmteach fit`"
        )
    folder = default_out(names) if out is None else Path(out)
    job = Job(config, names, folder, None if queries is None else Path(queries))
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    with settled(config.run), _no_bars():
        try:
            run_job(job, accelerator=accelerator, shape=Launch(1, 1))
        finally:
            gc.unfreeze()
    return read(folder)


def read(out: str | Path) -> list[dict[str, Any]]:
    """The rows of a finished run, sorted by key.

    Args:
        out: the run's output folder.

    Returns:
        Per instance its row of `results.jsonl` (`key`, `status`, `kept_loss`, ...), `folder`, and
        `score` where a benchmark has left a score.json.

    Raises:
        ValueError: a folder without results.jsonl.
    """
    out = Path(out)
    path = out / "results.jsonl"
    if not path.is_file():
        raise ValueError(
            f"{out}: got no results.jsonl, expected the output folder of a finished run; run "
            "`vlmteach fit` with --out first"
        )
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:  # texts may hold U+2028
        row = json.loads(line)
        folder = out / folder_name(row["key"])
        score = folder / "score.json"
        scored = {"score": read_json(score)} if score.exists() else {}
        rows.append({**row, "folder": str(folder), **scored})
    return rows


def config_of(preset: str | Path | Config, options: Options) -> Config:
    """The config of a preset with options laid over it; a config as it is.

    Raises:
        ValueError: for a preset or an option that does not fit, or options beside a config.
    """
    preset = str(preset) if isinstance(preset, Path) else preset
    if isinstance(preset, Config):
        if options:
            raise ValueError(
                f"options: got {options!r} beside a Config, expected a preset's name with them; "
                "use dataclasses.replace on the Config"
            )
        return preset
    if isinstance(options, Mapping):
        options = [
            f"--{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"
            for name, value in options.items()
        ]
    elif isinstance(options, str):
        raise ValueError(f"options: got {options!r}, expected a list of words or a dictionary")
    return read_config(["--config", preset, *options])


def _asked(config: Config, path: Path) -> tuple[Query, ...]:
    if not path.exists():
        return ()
    return queries_from_json(read_json(path)).asked(config.query.ask).queries


@contextmanager
def _folder(out: str | Path | None) -> Iterator[Path]:
    """Where an instance's files go; a temporary one is taken away again when the work fails."""
    if out is not None:
        folder = Path(out)
        if (folder / DONE).exists() or (folder / "clip.mp4").exists():
            raise ValueError(
                f"out: got {folder}, which holds a clip, expected a new folder; name another, or "
                "none for a temporary one"
            )
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="vlmteach-"))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _collected() -> Iterator[None]:
    """Finished fits are reference cycles, and hold memory of the device: they go at the end of a
    `with`."""
    failed = True
    try:
        yield
        failed = False
    finally:
        gc.collect()
        if failed and torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next instance may fit where this one did not


def _kept_with(made: Result, out: str | Path | None) -> Result:
    """Takes a temporary folder away when the result goes."""
    if out is None:
        weakref.finalize(made, shutil.rmtree, made.folder, ignore_errors=True)
    return made


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' own progress bars, one per model part."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
