"""The same instance gives the same bits: alone, in a shuffled tar, on two processes."""

import pytest

MODE = (
    "--wandb.mode=disabled",
    "--fit.shift=0.05",
    "--lora.init=gradient",
    "--lora.blocks=1",
)
"""With every source of chance that a fit has."""


def adapters(out):
    return {p.parent.name: p.read_bytes() for p in out.glob("*/adapter.safetensors")}


@pytest.fixture(scope="module")
def together(tmp_path_factory, run_fit, write_tar, sample):
    folder = tmp_path_factory.mktemp("together")
    tar = write_tar(folder / "data.tar", [sample(n) for n in range(3)])
    run_fit("--instances", tar, "--out", folder / "out", *MODE)
    return adapters(folder / "out")


def test_instances_differ(together):
    assert len(set(together.values())) == 3


def test_the_shift_takes_part(together, tmp_path, run_fit, write_tar, sample):
    tar = write_tar(tmp_path / "data.tar", [sample(2)])
    mode = [word for word in MODE if "shift" not in word]
    run_fit("--instances", tar, "--out", tmp_path / "out", *mode)
    assert adapters(tmp_path / "out")["move__ball_02"] != together["move__ball_02"]


def test_the_start_along_the_gradient_takes_part(together, tmp_path, run_fit, write_tar, sample):
    tar = write_tar(tmp_path / "data.tar", [sample(2)])
    mode = [word for word in MODE if "gradient" not in word]
    run_fit("--instances", tar, "--out", tmp_path / "out", *mode)
    assert adapters(tmp_path / "out")["move__ball_02"] != together["move__ball_02"]


def test_alone(together, tmp_path, run_fit, write_tar, sample):
    tar = write_tar(tmp_path / "alone.tar", [sample(2)])
    run_fit("--instances", tar, "--out", tmp_path / "out", *MODE)
    assert adapters(tmp_path / "out") == {"move__ball_02": together["move__ball_02"]}


@pytest.mark.parametrize("option", ["--devices=2", "--run.instances_at_once=2"])
def test_shuffled_and_on_two_processes(together, tmp_path, run_fit, write_tar, sample, option):
    tar = write_tar(tmp_path / "shuffled.tar", [sample(n) for n in (2, 0, 1)])
    arguments = ("--accelerator=cpu", option, *MODE)
    run_fit("--instances", tar, "--out", tmp_path / "out", *arguments)
    assert adapters(tmp_path / "out") == together
    claims = sorted(p.name for p in (tmp_path / "out" / ".claims").iterdir())
    binder, *solved = claims  # who bound the folder to its config
    assert binder.startswith("binder")
    assert solved == [f"move__ball_{n:02d}.1" for n in range(3)]


def test_under_torchrun(together, tmp_path, run_fit, write_tar, sample):
    tar = write_tar(tmp_path / "data.tar", [sample(n) for n in (1, 0, 2)])
    arguments = ("--accelerator=cpu", *MODE)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    output = run_fit("--instances", tar, "--out", tmp_path / "out", *arguments, launcher=launcher)
    assert adapters(tmp_path / "out") == together
    assert (
        output.count("3 done, 0 failed, 0 left") == 1
    )  # the first rank waits for the other, and tells
