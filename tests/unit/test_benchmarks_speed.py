"""The counts of `benchmarks.speed.floor`, the clock of `benchmarks.speed`; tiny architectures."""

import contextlib
import io
import json

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import __main__ as speed
from benchmarks.speed import case, comparisons, floor, full_size
from benchmarks.speed.timing import Case, Timing, compare
from vlmteach.builtin.paths import builtin_path
from vlmteach.builtin.taehv import FULL_WIDTHS, SMALL_WIDTHS
from vlmteach.plan import known
from vlmteach.plan.count import IntegersStayReal, Traffic, flops
from vlmteach.plan.counted import META

CPU = torch.device("cpu")
TINY = ["--config", "wan22-turbo", "--clip.frames", "5", "--clip.max_pixels", "2048"]
TINY += ["--teacher.frames", "3"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The architectures of the random checkpoints under the names of the real ones."""

    def stated(path):
        content = json.loads((path / "config.json").read_text())
        return {k: v for k, v in content.items() if not k.startswith("_")}

    wan = builtin_path("random/wan")
    parts = {part: stated(wan / part) for part in ("transformer", "vae", "text_encoder")}
    teacher = stated(builtin_path("random/qwen3_vl"))
    teacher = {k: v for k, v in teacher.items() if not k.endswith("_token_id")}
    folder = tmp_path_factory.mktemp("architectures")
    (folder / "wan22_ti2v_5b.json").write_text(json.dumps(parts))
    (folder / "qwen3_vl_4b.json").write_text(json.dumps(teacher))
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known, "ARCHITECTURES", folder)
        patch.setitem(FULL_WIDTHS, "taew2_2", SMALL_WIDTHS)
        yield case.read_command(floor.parser(), TINY)[1]
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def floors(tiny, tmp_path_factory):
    """Whether activations are recomputed -> what the command wrote, and what it printed."""
    found = {}
    for on in (False, True):
        path = tmp_path_factory.mktemp("floor") / "floor.json"
        words = [*TINY, "--json", str(path), "--rate", "1", "--fit.checkpointing", str(on).lower()]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert floor.main(words) == 0
        found[on] = json.loads(path.read_text()), printed.getvalue()
    return found


@pytest.mark.parametrize(("causal", "share"), [(False, 1.0), (True, 0.5)])
def test_attention_is_counted_as_one_kernel(causal, share):
    q = torch.empty(2, 3, 8, 16, device="meta", requires_grad=True)
    k = torch.empty(2, 3, 10, 16, device="meta", requires_grad=True)
    counted, out = flops(lambda: F.scaled_dot_product_attention(q, k, k, is_causal=causal))
    assert out.shape == q.shape
    product = 2 * (2 * 3) * 8 * 10 * 16
    assert counted == 2 * product * share
    assert flops(out.sum().backward)[0] == 5 * product * share
    assert q.grad is not None


def test_traffic_is_what_kernels_read_and_write():
    a = torch.empty(4, 8, device="meta")
    wide = a[:1].expand(1000, 8)
    with Traffic() as traffic:
        _ = a.t() @ a  # reads both, writes 8 x 8
    assert traffic.bytes == 4 * (32 + 32 + 64)
    with Traffic() as traffic:
        counted, _ = flops(lambda: torch.empty(4, 4, device="meta").addmm_(a, a.t()))
    assert traffic.bytes == 4 * (16 + 32 + 32 + 16)
    assert counted == 2 * 4 * 8 * 4
    with Traffic() as traffic:
        wide.sum()
    assert traffic.bytes == 4 * (8 * 4 + 1)


def test_meta_counts_are_those_of_real_tensors(tiny):
    """Forward passes only: the plain kernel that a CPU can count has another backward."""

    def forward(device):
        models = full_size.build(tiny, device)
        with IntegersStayReal():
            module = case.micro_fit_of(models, tiny, case.problem_of(models, tiny))
            questions = case.questions_of(models, module.problem)
        z0 = torch.zeros(module.problem.noise.z1.shape, device=device)
        pixels = torch.zeros(3, 3, module.problem.clip.height, module.problem.clip.width)
        pixels = pixels.to(device)
        return (
            module.predict,
            lambda: models.decoder.decode(z0, module.problem.frames),
            lambda: models.teacher.log_p_yes(pixels, questions),
            lambda: models.reasoner.decode(z0),
        )

    for counted, real in zip(forward(META), forward(CPU), strict=True):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            real()
        assert flops(counted)[0] == counter.get_total_flops() > 0


def test_floor_adds_up(tiny, floors):
    written, printed = floors[tiny.fit.checkpointing == "full"]
    tflop = {(row["stage"], row["part"]): row["tflop"] for row in written["rows"]}
    whole = tflop["once", "reasoner, prefix of the updates included"]
    assert tflop["generation", "reasoner, 4 evaluations"] == pytest.approx(4 * whole)
    assert 0.5 * whole < tflop["update", "reasoner, forward"] < whole
    shared = tflop["update", "teacher, 4 queries in one pass, forward"]
    assert shared < tflop["instead", "teacher, 4 passes, forward"] < 4 * shared
    assert all(value > 0 for value in tflop.values())
    assert all(row["moved_tb"] > 0 for row in written["rows"])
    update, generation = (
        sum(value for (stage, _), value in tflop.items() if stage == name)
        for name in ("update", "generation")
    )
    assert written["ratio"] == pytest.approx(update / generation)
    assert f"{update / generation:.3f} of one generation" in printed


def test_recomputation_is_counted_apart(floors):
    rows, kept = {}, {}
    for on, (written, _) in floors.items():
        rows = {row["part"]: row for row in written["rows"]}
        kept[on] = rows["reasoner, forward"]["kept_gib"]
    assert 0 < kept[True] < kept[False] / 2
    tflop = {part: row["tflop"] for part, row in rows.items()}
    assert 0.5 < tflop["reasoner, recomputed"] / tflop["reasoner, forward"] <= 1
    assert not [part for part in tflop if part.startswith("decoder") and "recomputed" in part]


def test_speed_at_full_size_without_checkpoints(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(comparisons, "UPDATES", 1)
    arguments = [*TINY, "--full-size", "--repeats", "2", "--out", str(tmp_path)]
    assert speed.main(arguments) == 0
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["full_size"]
    compared = written["comparisons"]
    assert [[timing["name"] for timing in timings] for timings in compared.values()] == [
        ["generation", "update"],
        ["in one pass", "one pass each"],
        ["3 frames", "whole clip"],
        ["surrogate", "full", "full, recomputed"],
        ["first", "last", "full"],
        ["kept", "recomputed"],
        ["one product", "by peft"],
        ["free", "deterministic"],
        ["update", "reset"],
        ["bare loop", "Trainer"],
    ]
    for timings in compared.values():
        assert all(len(timing["milliseconds"]) == 2 for timing in timings)
    kept, recomputed = (timing["memory_mib"] for timing in compared["Activations"])
    assert recomputed < kept
    assert (tmp_path / "speed.md").read_text().strip() in capsys.readouterr().out


def test_full_size_refuses_a_preset_of_embedded_models(capsys):
    assert speed.main(["--full-size"]) == 2
    assert "got 'builtin:random/wan', expected one of Wan-AI/" in capsys.readouterr().err


def test_cases_take_turns():
    calls: list[str] = []
    cases = [
        Case(name, lambda name=name: calls.append(name), before=lambda: calls.append("-"))
        for name in "ab"
    ]
    timings = compare(cases, repeats=3, device=CPU)
    assert "".join(calls) == "-a-b" + "-a-b" + "-b-a" + "-a-b"
    assert [len(timing.milliseconds) for timing in timings] == [3, 3]


def test_memory_is_what_backward_needs_and_is_not_the_model():
    weight = torch.ones(256, 256)
    x = torch.ones(64, 256, requires_grad=True)
    case_ = Case("product", lambda: (x.exp() @ weight).sum().backward())
    (kept,) = compare([case_], repeats=1, device=CPU, frozen=[weight])
    assert kept.memory_mib == 64 * 256 * 4 / 2**20  # exp keeps its result
    (with_weight,) = compare([case_], repeats=1, device=CPU)
    assert with_weight.memory_mib == (64 + 256) * 256 * 4 / 2**20


def test_what_does_not_fit_is_left_out():
    def fail():
        raise torch.OutOfMemoryError

    timings = compare([Case("big", fail), Case("small", lambda: None)], repeats=2, device=CPU)
    assert [len(timing.milliseconds) for timing in timings] == [0, 2]
    assert "| big | out of memory |" in comparisons.markdown("Size", timings, on_gpu=False)


def test_ratio_is_taken_round_by_round():
    slow = Timing("slow", [10.0, 200.0, 30.0])
    fast = Timing("fast", [5.0, 100.0, 30.0])
    assert slow.ratio(fast) == 2.0
    assert slow.median == 30.0
    assert slow.quartiles() == (20.0, 115.0)
