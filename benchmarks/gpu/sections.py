"""What is checked and measured on a device, one function a section."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.at_once import several_at_once
from benchmarks.gpu.report import Report, Skipped
from vlmteach.problem import sample

if TYPE_CHECKING:
    from vlmteach.config import Config
    from vlmteach.models import Models
    from vlmteach.problem import Problem

TOLERANCE = 1e-3
"""Relative, in float32: of loss, gradient and prediction on the device to those on the CPU."""
UPDATES = 3
"""Of the instance that is fitted twice."""

Section = tuple[str, Callable[[], dict[str, Any]]]


def sections(
    configs: dict[str, Config], device: torch.device, repeats: int, report: Report
) -> Iterator[Section]:
    """Name and work of each section, in order."""
    yield "rates", partial(rates, device)
    yield "parity with the CPU", partial(parity, device)
    yield "same bits twice", partial(same_bits, device)
    for name, config in configs.items():
        yield name, partial(full_size, config, device, repeats, report)
    yield "several at once", partial(several_at_once, device, report)


def rates(device: torch.device) -> dict[str, Any]:
    """What a plan goes by: TFLOP/s of large matrix products, TB/s of a copy."""
    from vlmteach.plan.rates import measure

    found = measure(device)
    products = {f"{dtype}_tflop_s": rate / 1e12 for dtype, rate in found.flops.items()}
    return {**products, "copy_tb_s": found.copy / 1e12}


def _miniature(device: torch.device, *, deterministic: bool = True) -> Any:
    """A made-up instance's micro-fit on the miniature."""
    from benchmarks.speed.case import micro_fit_of, problem_of
    from vlmteach.kernels import settle
    from vlmteach.models import load
    from vlmteach.options import read_config
    from vlmteach.problem import reset

    config = read_config(["--config", "mini"])
    settle(replace(config.run, deterministic=deterministic))
    models = load(config, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        problem = problem_of(models, config)
    reset(models, seed=0, key="benchmark")
    return micro_fit_of(models, config, problem)


def _seen(module: Any, flat: torch.Tensor, condition: Any) -> dict[str, torch.Tensor]:
    """Prediction, loss and gradient under an adapter and a condition from the CPU."""
    device = module.models.reasoner.device
    moved = replace(
        condition, text=condition.text.to(device), first_latent=condition.first_latent.to(device)
    )
    module.problem = replace(module.problem, condition=moved)
    module.models.lora.load(flat.to(device))
    with torch.no_grad():
        z0 = module.predict()
    loss = module().total
    found = torch.autograd.grad(loss, list(module.models.lora.parameters))
    gradient = torch.cat([each.flatten() for each in found])
    values = {"prediction": z0, "loss": loss.detach()[None], "gradient": gradient}
    return {name: value.double().cpu() for name, value in values.items()}


def parity(device: torch.device) -> dict[str, Any]:
    """The miniature on the device and on the CPU: the same weights, adapter and instance."""
    here = _miniature(torch.device("cpu"))
    there = _miniature(device)
    generator = torch.Generator().manual_seed(1)
    flat = 0.05 * torch.randn(here.models.lora.flat.shape, generator=generator)
    condition = here.problem.condition
    ours, theirs = (_seen(module, flat, condition) for module in (here, there))
    off = {}
    for name, value in ours.items():
        assert value.norm() > 0, f"{name}: all zero, nothing is compared"
        off[f"{name}_off"] = ((theirs[name] - value).norm() / value.norm()).item()
    for name, value in off.items():
        if not value < TOLERANCE:
            raise AssertionError(f"{name}: got {value:.1e}, expected below {TOLERANCE}")
    return off


def same_bits(device: torch.device) -> dict[str, Any]:
    """The same instance fitted twice, and the price of deterministic kernels."""
    from benchmarks.speed.comparisons import updater
    from vlmteach.problem import reset

    module = _miniature(device)
    lora = module.models.lora
    ends = []
    for _ in range(2):
        reset(module.models, seed=0, key="benchmark")
        update = updater(module)
        for _ in range(UPDATES):
            update()
        ends.append(lora.snapshot().cpu())
    if not torch.equal(*ends):
        apart = (ends[0] - ends[1]).abs().max().item()
        raise AssertionError(f"adapters after {UPDATES} updates differ by up to {apart:.1e}")
    exact = _median(updater(module), device, 5)
    free = _median(updater(_miniature(device, deterministic=False)), device, 5)
    return {"same_bits": True, "deterministic_over_free": exact / free}


def full_size(config: Config, device: torch.device, repeats: int, report: Report) -> dict[str, Any]:
    """A preset with random weights: memory and time beside the plan, and a profile."""
    from benchmarks.speed import full_size as built
    from benchmarks.speed.case import micro_fit_of, problem_of
    from benchmarks.speed.comparisons import updater
    from vlmteach.kernels import settle
    from vlmteach.models import recompute
    from vlmteach.plan.clips import clip_of_config
    from vlmteach.plan.counted import Counted, hollow_models
    from vlmteach.plan.price import plan
    from vlmteach.plan.rates import GIB, measure

    hollow = hollow_models(config)
    planned = plan(Counted(hollow, config, clip_of_config(config, hollow)), measure(device))
    mode = planned.checkpointing
    update_phase, sampling = (planned.phase(name) for name in ("update", "sampling"))
    found: dict[str, Any] = {
        "checkpointing": mode,
        "plan_peak_gib": planned.peaks[mode] / GIB,
        "plan_update_s": update_phase.seconds,
        "plan_sampling_s": sampling.seconds,
        "update_tflop": update_phase.flop / 1e12,
    }
    if not planned.fits:
        raise Skipped(
            f"{planned.peak / GIB:.1f} GiB are planned, {planned.device.memory / GIB:.1f} are there"
        )
    round_ = update_phase.seconds + sampling.seconds
    if 4 * round_ > report.seconds_left:  # a warm-up and a round, at half the rate
        left = report.seconds_left
        raise Skipped(f"a round takes {round_:.0f} s at least, {left:.0f} of --minutes are left")
    settle(config.run)
    models = built.build(config, device)
    recompute(models, mode)
    problem = problem_of(models, config)
    module = micro_fit_of(models, config, problem)
    update = updater(module)
    update()  # the prefix, and cuBLAS's own memory
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        update()
        found["peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    else:
        found["peak_gib"] = (planned.resident + _live_peak(module)) / GIB
    found["peak_over_plan"] = found["peak_gib"] / found["plan_peak_gib"]
    found["update_s"] = _median(update, device, 1)
    if repeats * found["update_s"] < report.seconds_left:
        found["update_s"] = _median(update, device, repeats)
    found["generation_s"] = _median(lambda: _generate(models, problem), device, 1)
    found["update_over_generation"] = found["update_s"] / found["generation_s"]
    found["update_over_plan"] = found["update_s"] / found["plan_update_s"]
    if report.seconds_left > 4 * found["update_s"]:
        found["profile"] = _profile(update, device, report)
    return found


def _live_peak(module: Any) -> float:
    """Bytes at most in an update on a CPU, which has no allocator that could be asked."""
    from vlmteach.plan.count import Live

    for parameter in module.models.lora.parameters:
        parameter.grad = None
    with Live("cpu") as live:
        module().total.backward()
    return live.peak


def _generate(models: Models, problem: Problem) -> None:
    """A generation; random weights may leave the numbers, which costs the same."""
    with suppress(FloatingPointError):
        sample(models, problem)


def _profile(run: Callable[[], object], device: torch.device, report: Report) -> str:
    """The name of the file with the kernels of one update, by time."""
    from torch.profiler import ProfilerActivity, profile

    seen = [ProfilerActivity.CPU]
    if device.type == "cuda":
        seen.append(ProfilerActivity.CUDA)
    with profile(activities=seen) as profiler:
        run()
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=by, row_limit=30)
    file = f"profile-{report.section}.txt"
    (report.folder / file).write_text(table + "\n", encoding="utf-8")
    return file


def _median(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Seconds of the median round, after a warm-up."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run()
    taken = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
