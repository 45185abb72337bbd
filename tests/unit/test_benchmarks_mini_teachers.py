"""Teachers from weak to strong: what they see, and what is told of them."""

from pathlib import Path

import pytest
import torch

from benchmarks.mini import teachers
from benchmarks.mini.teachers import Found, Sight, blurred
from benchmarks.sweep import read_sweep
from vlmteach.instances.write import write_tar
from vlmteach.ledger import DONE, folder_name
from vlmteach.mini import world
from vlmteach.record import write_json
from vlmteach.rows import CLIP
from vlmteach.video import write_video

SWEEP = Path(teachers.__file__).with_name("teachers.yaml")


def test_a_blur_keeps_flat_colour_and_spreads_a_point_evenly():
    flat = torch.full((2, 3, 8, 8), 0.25)
    torch.testing.assert_close(blurred(flat, 1.3), flat)
    assert blurred(flat, 0.0) is flat
    point = torch.zeros(1, 3, 15, 15)
    point[:, :, 7, 7] = 1
    seen = blurred(point, 1.0)
    torch.testing.assert_close(seen, seen.transpose(2, 3))
    torch.testing.assert_close(seen.sum((2, 3)), torch.ones(1, 3))
    # A Gaussian of one pixel: exp(-1/2) one pixel away.
    ratio = seen[0, 0, 7, 8] / seen[0, 0, 7, 7]
    torch.testing.assert_close(ratio, torch.tensor(-0.5).exp())


def test_a_blur_lets_the_gradient_through():
    frames = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: blurred(x, 0.8), [frames])


def test_every_teacher_of_the_sweep_can_be_made():
    settings = read_sweep(SWEEP).settings
    sights = [s for s in settings.values() if s.get("reward") == teachers.REWARD]
    assert len(sights) >= 5
    for options in sights:
        named = {k.removeprefix("reward."): v for k, v in options.items() if "reward." in k}
        assert Sight(**named).settings.checkpoint == named["checkpoint"]
        assert options["fit.teacher_weight"] == 0, "else two teachers are climbed"


def one(name, accuracy, auroc, strict):
    interval = {"mean": strict, "low": strict - 0.1, "high": strict + 0.1}
    return Found(name, 40, accuracy, auroc, 20, interval, interval, 0.05)


def test_the_figure_has_the_line_s_r_squared_and_the_table_a_row_each(tmp_path):
    found = [one("a", 0.6, 0.5, 0.2), one("b", 0.7, 0.6, 0.3), one("c", 0.8, 0.9, 0.4)]
    drawn = teachers.figure(found)
    titles = [axis.get_title() for axis in drawn.axes]
    assert titles[0] == "R² = 1.000, 3 teachers"  # on a line by accuracy, not by AUROC
    assert titles[1] != titles[0]
    drawn.savefig(tmp_path / "figure.png")
    lines = teachers.text(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert lines[2] == "| a | 0.600 | 0.500 | 40 | 20 | 0.200 [0.100, 0.300] | 0.200 | 0.050 |"


def test_capability_is_of_clips_that_the_teacher_s_own_fits_had_no_hand_in(tmp_path):
    samples = list(world.export("tuning", 13, 6))
    write_tar(iter(samples), tmp_path / "tasks.tar")
    sight = {"reward": teachers.REWARD, "reward.checkpoint": "builtin:mini/teacher"}
    settings = {"base": {"method": "base"}, "mine": sight}
    for setting in settings:
        for sample in samples:
            folder = tmp_path / setting / "seed0" / folder_name(sample.key)
            folder.mkdir(parents=True)
            write_json(folder / DONE, {"key": sample.key})
            _, family, seed = sample.key.split("/")
            task = world.make(family, "tuning", int(seed))
            # Half of the base's clips are right; all of the fit's are still pictures.
            right = setting == "base" and samples.index(sample) % 2 == 0
            still = task.truth[:1].repeat(world.FRAMES, 0)
            video = torch.from_numpy(task.truth if right else still)
            write_video(folder / CLIP, video, world.FPS)
    (found,) = teachers.found(tmp_path, settings)
    assert (found.setting, found.clips, found.n) == ("mine", 13, 13)
    assert found.strict["mean"] == 0
    assert found.accuracy > 0.7
    assert found.auroc > 0.8
    assert found.false_yes == 0


def test_a_sweep_that_was_not_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got no finished task, expected a finished sweep"):
        teachers.found(tmp_path, {"base": {}})
