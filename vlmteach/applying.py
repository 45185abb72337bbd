"""`vlmteach apply`: adapters that were kept, on one instance or many, at one scale or several.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, starmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach import exits, stops
from vlmteach.adapter_notes import ADAPTER, queries_of, read_notes, shortened
from vlmteach.config import Config
from vlmteach.ledger import folder_name
from vlmteach.options import parse
from vlmteach.record import write_json
from vlmteach.rows import CLIP, SCALES
from vlmteach.stops import Stopped, stoppable
from vlmteach.text import folder, printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from vlmteach.entrance import Loaded
    from vlmteach.instances import RawSample
    from vlmteach.scales import Asked
    from vlmteach.solved import Made
    from vlmteach.teachers.base import Watcher
    from vlmteach.types import Instance, Query

APPLIED, SHEET = "applied.json", "sheet.png"
_TABLES = (".csv", ".jsonl", ".json", ".parquet")
_SMALLEST, _LARGEST = 96, 256
"""Pixels of the shorter side of a frame on the sheet."""


def parser() -> argparse.ArgumentParser:
    """Which adapter, at what scale, on what; every field of `Config` is an option beside these."""
    cli = argparse.ArgumentParser(
        prog="vlmteach apply",
        usage="vlmteach apply [IMAGE] PROMPT --adapter FILE --out DIR [options]\n"
        "       vlmteach apply --instances DATA --adapter RUN --out DIR [options]",
        description="Samples clips with adapters that were kept; nothing is fitted.",
        epilog="Another seed is --run.seed.",
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    cli.add_argument("words", nargs="*", metavar="[IMAGE] PROMPT", help="first frame, and the task")
    cli.add_argument(
        "--instances",
        nargs="+",
        default=[],
        help="in place of a prompt: tars, patterns, folders, builtin:demo.tar or tables, as `fit` "
        "and `pack` take them",
    )
    cli.add_argument(
        "--adapter",
        type=Path,
        required=True,
        help="adapter.safetensors, as a fit leaves it, or its folder; with --instances also the "
        "folder of a run: each instance gets its own",
    )
    cli.add_argument("--out", type=folder, required=True, help="a new folder for the files")
    scale = cli.add_mutually_exclusive_group()
    scale.add_argument(
        "--scale", type=float, default=1.0, help="of the adapter (default: 1; 0 is the base model)"
    )
    scale.add_argument(
        "--scales",
        type=_scales,
        default=(),
        help="several, with commas, such as 0,0.5,1: a folder for each, all on one sheet, and what "
        "the teacher says of each; with 0 among them also how each clip looks beside the base's",
    )
    cli.add_argument(
        "--judge",
        metavar="CHECKPOINT",
        help="with --scales: another model of the teacher's family, asked the same of each clip",
    )
    cli.add_argument(
        "--candidate",
        type=int,
        help="which of the instance's noises (default: the one of the fit)",
    )
    cli.add_argument(
        "--key",
        default="instance",
        help="of a prompt: all draws derive from it and run.seed (default: %(default)s)",
    )
    return cli


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(word) for word in text.split(","))
    except ValueError:
        scales = ()
    if (
        not scales
        or not all(map(math.isfinite, scales))
        or len({*map(_name, scales)}) < len(scales)
    ):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected different numbers with commas between them, such as 0,0.5,1"
        )
    return scales


def _name(scale: float) -> str:
    return f"scale-{scale:g}"


def main(words: Sequence[str]) -> int:
    """Runs `vlmteach apply`.

    Returns:
        0 when every clip is made, 3 when some are not, 2 when it could not start.

    Raises:
        Stopped: when a signal asked for it; an exit with 128 and the signal's number.
    """
    try:
        with stoppable(), _told_in_lines():
            own, config = parse(parser(), words)
            _refuse(own)
            return _apply(own, config)
    except Stopped as stop:
        print(f"\n{stop}", file=sys.stderr)
        raise
    except (ValueError, OSError, FloatingPointError) as error:
        return exits.refused(error, "(vlmteach apply --help lists the options)")


@contextmanager
def _told_in_lines() -> Iterator[None]:
    """A warning is one line, as an error is."""

    def tell(message: Warning | str, *_: object, **__: object) -> None:
        print(printable(f"warning: {message}"), file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


def _refuse(own: argparse.Namespace) -> None:
    """What cannot be is told before models are loaded."""
    several = bool(own.instances)
    if several == bool(own.words) or len(own.words) > 2:
        raise ValueError(f"got {own.words!r}, expected [IMAGE] PROMPT, or --instances without them")
    if not several:
        for given in own.words[:-1]:
            if not Path(given).is_file():
                raise ValueError(f"got {given!r}, expected a file that exists")
    if own.out.exists() and (not own.out.is_dir() or any(own.out.iterdir())):
        raise ValueError(f"--out: got {own.out}, which holds files, expected a new folder")
    if own.judge is not None and not own.scales:
        raise ValueError(f"--judge: got {own.judge!r} without --scales, expected both")
    adapter = own.adapter
    if not (adapter.is_file() or (adapter / ADAPTER).is_file() or (several and adapter.is_dir())):
        expected = f"a file, or a folder with {ADAPTER}" + (", or a run" if several else "")
        raise ValueError(f"--adapter: got {str(adapter)!r}, expected {expected}")


def _apply(own: argparse.Namespace, config: Config) -> int:
    import vlmteach

    rows: list[dict[str, Any]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        instances = _instances(own, Path(scratch))  # sources that cannot be are told before loading
        models = vlmteach.load(config)
        watchers = [models.models.teacher, *_judges(own.judge, models)]
        try:
            for key, given, ahead in instances:
                stops.check()
                folder = own.out / folder_name(key) if own.instances else own.out
                try:
                    if isinstance(given, ValueError):
                        raise given
                    rows += _apply_to(models, watchers, own, given, folder, ahead)
                except (ValueError, FloatingPointError) as error:
                    if not own.instances:
                        raise
                    failed += 1
                    rows.append({"key": key, "error": str(error)})
                    print(printable(f"{key}: {error}"), file=sys.stderr, flush=True)
        finally:
            if rows:
                own.out.mkdir(parents=True, exist_ok=True)
                write_json(own.out / APPLIED, rows)
    return exits.SOME_FAILED if failed else 0


def _instances(
    own: argparse.Namespace, scratch: Path
) -> Iterable[tuple[str, Instance | ValueError, Sequence[str]]]:
    """Keys and instances, or why one cannot be used; and prompts of those that follow.

    Args:
        own: of the command line.
        scratch: where a table becomes a tar.

    Raises:
        ValueError: for a source that is none.
    """
    from vlmteach.fit import source_path
    from vlmteach.instances import decode, pack, read_samples
    from vlmteach.instances.ahead import FOR_EACH_RANK, read_ahead
    from vlmteach.instances.loose import instance_of

    if not own.instances:
        *image, prompt = own.words
        return [(own.key, instance_of(prompt, *image, key=own.key), ())]
    refused, sources = [], []
    for number, name in enumerate(map(source_path, own.instances)):
        if name.lower().endswith(_TABLES):
            packed = pack(name, scratch / f"{number}.tar")
            refused += [(error.key, error, ()) for error in packed.refused]
            name = str(scratch / f"{number}.tar") if packed.keys else None
        sources += [name] if name else []

    def decoded(raw: RawSample, ahead: Sequence[str]) -> tuple[str, Any, Sequence[str]]:
        try:
            return raw.key, decode(raw), ahead
        except ValueError as error:
            return raw.key, error, ()

    samples = read_ahead(read_samples(sources) if sources else (), FOR_EACH_RANK)
    return chain(refused, starmap(decoded, samples))


def _judges(checkpoint: str | None, models: Loaded) -> list[Watcher]:
    """The judge, where one is named: it watches as the teacher does, and no fit has optimised it.

    Raises:
        ValueError: a checkpoint that cannot be used.
    """
    if checkpoint is None:
        return []
    from transformers.utils.logging import disable_progress_bar

    from vlmteach.teachers.loading import beside, load_teacher

    disable_progress_bar()  # of a part of the model each
    settings = beside(models.config.teacher, checkpoint)
    return [load_teacher(settings, models.models.reasoner.device, False)]


def _apply_to(
    models: Loaded,
    watchers: Sequence[Watcher],
    own: argparse.Namespace,
    instance: Instance,
    folder: Path,
    ahead: Sequence[str],
) -> list[dict[str, Any]]:
    """The clips of one instance, and a row for each; at several scales also `scales.json`.

    Args:
        models: loaded.
        watchers: the teacher, and after it the judge where there is one.
        own: of the command line.
        instance: decoded.
        folder: for its clips.
        ahead: prompts of instances that follow.
    """
    from vlmteach.entrance import apply_to
    from vlmteach.scales import at_scales, table_of

    adapter: Path = own.adapter
    if adapter.is_dir() and not (adapter / ADAPTER).is_file():
        adapter = adapter / folder_name(instance.key) / ADAPTER
        if not adapter.is_file():
            raise ValueError(
                f"--adapter: got no {adapter}, expected the adapter of this instance; fit it, or "
                "name one file for all instances"
            )
    rows, clips = [], []
    for scale in own.scales or (own.scale,):
        made = apply_to(
            models,
            adapter,
            instance,
            scale=scale,
            candidate=own.candidate,
            out=folder / _name(scale) if own.scales else folder,
            ahead=ahead,
        )
        clips.append((scale, made))
        rows.append(
            {
                "key": instance.key,
                "prompt": instance.prompt,
                "adapter": str(adapter),
                "scale": scale,
                "seed": made.outcome.seed,
                "candidate": made.outcome.candidate,
                "folder": str(made.folder.relative_to(own.out)),
            }
        )
        print(printable(str(made.folder / CLIP)), flush=True)
    if own.scales:
        queries = _queries(adapter, instance)
        frames = models.config.teacher.frames
        asked = [_asked(each, queries, frames) for each in watchers if queries]
        looked_at = {scale: (made.frames, made.fps) for scale, made in clips}
        scales = at_scales(looked_at, asked, own.judge)
        write_json(folder / SCALES, scales)
        print(table_of(scales), file=sys.stderr, flush=True)
        _sheet(clips).save(folder / SHEET)
        print(printable(str(folder / SHEET)), flush=True)
    return rows


def _queries(adapter: Path, instance: Instance) -> tuple[Query, ...]:
    """What the fit asked; nothing where the adapter is put to another task."""
    notes = read_notes(adapter / ADAPTER if adapter.is_dir() else adapter)
    is_its_own = notes.get("vlmteach.prompt") == shortened(instance.prompt)
    return queries_of(notes) if is_its_own else ()


def _asked(watcher: Watcher, queries: Sequence[Query], frames: int) -> Asked:
    """Asks a model of clips; that it cannot be asked is told, and the clips are made."""
    from vlmteach.watch import watch

    def asked(clip: Tensor, fps: float) -> tuple[float, ...]:
        try:
            told = watch(watcher, clip, queries, fps=fps, frames=frames)
        except ValueError as error:  # a query of a stranger's adapter, say
            warnings.warn(f"--scales: {error}; not asked", stacklevel=2)
            return ()
        return tuple(told.double().exp().tolist())

    return asked


def _sheet(clips: Sequence[tuple[float, Made]]) -> Image:
    """A row per scale: the scale, and some frames of its clip."""
    from PIL import Image, ImageDraw

    from vlmteach.frames import uniform_frames
    from vlmteach.methods.sheets import SHEET_FRAMES, image_of, tile

    rows = []
    for scale, made in clips:
        shorter = min(made.frames.shape[1:3])
        # Whole pixels where a frame grows, so that a small one is shown as it is.
        factor = min(max(1, math.ceil(_SMALLEST / shorter)), _LARGEST / shorter)
        height, width = (round(side * factor) for side in made.frames.shape[1:3])
        how = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
        label = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(label).text(
            (width / 2, height / 2), f"{scale:g}", "black", anchor="mm", font_size=height / 4
        )
        numbers = uniform_frames(len(made.frames), SHEET_FRAMES)
        frames = [image_of(made.frames[n]).resize((width, height), how) for n in numbers]
        rows.append([label, *frames])
    return tile(rows)
