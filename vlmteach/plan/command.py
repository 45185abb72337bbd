"""`vlmteach plan`: what a run will hold and take, before it starts; no weight is read.

vlmteach plan --config wan22-turbo --device h100 --fit.checkpointing auto
vlmteach plan --instances data.tar --config mini
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmteach import exits
from vlmteach.options import parse

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.plan.price import Plan
    from vlmteach.types import Instance

_SIZES = 3
"""Clip sizes that are counted; smaller ones are taken to cost what the last does."""


def parser() -> argparse.ArgumentParser:
    """The command's own options; every field of `Config` is one beside these."""
    cli = argparse.ArgumentParser(
        prog="vlmteach plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
        exit_on_error=False,
    )
    cli.add_argument(
        "--instances", nargs="+", default=[], help="as for fit: the plan is then of all of them"
    )
    cli.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda: measured here; or a100, h100, h200, rtx4090: by published peak "
        "rates, which no kernel reaches (default: %(default)s)",
    )
    return cli


def main(words: Sequence[str] | None = None) -> int:
    """Prints the plan; 0 when it fits, 3 when it does not, 2 for what cannot be planned."""
    try:
        own, config = parse(parser(), sys.argv[1:] if words is None else list(words))
        text, fits = told(config, own.instances, own.device)
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach plan --help lists the options)")
    print(text)
    return 0 if fits else exits.SOME_FAILED


def told(
    config: Config, sources: Sequence[str], device: str, instances: Sequence[Instance] = ()
) -> tuple[str, bool]:
    """The plan as text, and whether all of it fits.

    Args:
        config: of the run.
        sources: of its instances.
        device: see `vlmteach.plan.rates.device_of`.
        instances: beside those of the sources; without any, one that asks for no size.

    Raises:
        ValueError: what cannot be read or planned.
    """
    from collections import Counter

    if config.method != "micro_fit":
        raise ValueError(
            f"method: got {config.method!r}, expected micro_fit, whose fits alone are counted; a "
            "plain sample is the phase `sampling` of its plan"
        )
    from transformers.utils.logging import disable_progress_bar

    from vlmteach.builtin.paths import source_path
    from vlmteach.plan.clips import clip_of, clip_of_config, clips_of
    from vlmteach.plan.counted import Counted, hollow_models
    from vlmteach.plan.price import plan
    from vlmteach.plan.rates import device_of

    disable_progress_bar()  # of the small files that stand in for a checkpoint's
    rates = device_of(device)
    models = hollow_models(config)
    clips, refused = clips_of([source_path(name) for name in sources], config, models)
    clips += Counter(clip_of(instance, config, models) for instance in instances)
    if not clips and sources:
        raise ValueError("--instances: got none that can be read, expected at least one")
    is_of_none = not clips
    if is_of_none:
        clips[clip_of_config(config, models)] = 1
    largest = sorted(clips, key=lambda c: c.frames * c.height * c.width, reverse=True)
    plans = [plan(Counted(models, config, clip), rates) for clip in largest[:_SIZES]]
    lines = [table(each) for each in plans]
    if not is_of_none:
        last = len(plans) - 1
        seconds = sum(plans[min(i, last)].seconds * clips[c] for i, c in enumerate(largest))
        kinds = f"{len(largest)} clip size" + "s" * (len(largest) > 1)
        total = sum(clips.values())
        counted = f"{total} instance" + "s" * (total > 1)
        lines.append(f"{counted} of {kinds}: at least {span(seconds)} on one device")
    if refused:
        lines.append(f"{refused} samples will be refused")
    return "\n\n".join(lines), all(each.fits for each in plans)


def table(plan: Plan) -> str:
    """One plan as text, 80 columns at most."""
    from vlmteach.plan.price import SPARE
    from vlmteach.plan.rates import GIB

    clip, device = plan.clip, plan.device
    lines = [
        f"clip {clip.frames} x {clip.height} x {clip.width} on {device.name}",
        f"{device.memory / GIB:.1f} GiB, "
        + ", ".join(f"{d} {r / 1e12:.3g} TFLOP/s" for d, r in device.flops.items())
        + f", copy {device.copy / 1e12:.3g} TB/s",
        "",
        *(f"{name:<26}{_gib(size)}" for name, size in plan.parts.items()),
        "",
        f"{'phase':<22}{'times':>6}{'TFLOP':>11}{'moved, GB':>11}{'peak, GiB':>11}{'s':>11}",
    ]
    lines += [
        f"{p.name:<22}{p.times:>6}{_number(p.flop / 1e12):>11}{_number(p.moved / 1e9):>11}"
        f"{_number(p.peak / GIB):>11}{_number(p.seconds):>11}"
        for p in plan.phases
    ]
    how = "chosen" if plan.is_chosen else "as set"
    peaks = ", ".join(f"{mode} {_number(peak / GIB)} GiB" for mode, peak in plan.peaks.items())
    short = "" if plan.fits else "; make the clip smaller, or take a larger device"
    lines += [
        "",
        f"checkpointing: {plan.checkpointing}, {how} (an update: {peaks})",
        f"VAE: {'in tiles, as the whole does not fit' if plan.is_tiled else 'whole picture'}",
        f"one instance: at least {span(plan.seconds)} with every update and one reading more; "
        "videos are",
        "encoded beside it on the CPU, which is not counted",
        f"{'fits' if plan.fits else 'does not fit'}: {_number(plan.peak / GIB)} of "
        f"{device.memory / GIB:.1f} GiB, {SPARE:.0%} of which are left free{short}",
    ]
    return "\n".join(lines)


def _gib(size: float) -> str:
    return f"{size / 2**30:>9.3f} GiB" if size >= 2**26 else f"{size / 2**20:>9.3f} MiB"


def _number(value: Any) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def span(seconds: float) -> str:
    """Seconds as a person says them.

    >>> span(7200)
    '2.0 h'
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
