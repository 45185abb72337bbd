"""Tasks of the miniature world as WebDataset samples, and back."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vlmteach.instances import decode, read_held_out, read_samples
from vlmteach.instances.write import write_tar
from vlmteach.mini.world import FPS, FRAMES, SIZE, export, families, score, task_of
from vlmteach.mini.world.__main__ import main
from vlmteach.video import read_video


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "test.tar"
    packed = write_tar(export("test", 2 * len(families()), 5), out)
    assert not packed.refused
    return out


def test_instances_say_what_the_reasoner_needs_and_no_more(tar):
    instances = [decode(raw) for raw in read_samples(str(tar))]
    assert [i.task for i in instances] == [family.name for family in families()] * 2
    for instance in instances:
        assert (instance.frames, instance.fps) == (FRAMES, FPS)
        assert (instance.height, instance.width) == (SIZE, SIZE)
        assert instance.split == "test"
        assert instance.queries == ()


def test_meta_rebuilds_the_task_and_its_rules(tar):
    instances = {raw.key: decode(raw) for raw in read_samples(str(tar))}
    held_out = list(read_held_out(str(tar)))
    assert len(held_out) == len(instances)
    for held in held_out:
        assert held.meta is not None
        assert held.final_png is not None
        task, instance = task_of(held.meta), instances[held.key]
        assert task.key == held.key
        assert task.prompt == instance.prompt
        np.testing.assert_array_equal(np.asarray(instance.first_frame), task.first_frame)
        final = np.asarray(Image.open(io.BytesIO(held.final_png)))
        np.testing.assert_array_equal(final, task.truth[-1])
        assert score(task, task.truth).strict


def test_the_true_video_survives_its_file(tar):
    for held in read_held_out(str(tar)):
        assert held.meta is not None
        assert held.ground_truth_mp4 is not None
        frames, fps = read_video(held.ground_truth_mp4)
        task = task_of(held.meta)
        assert fps == FPS
        assert frames.shape == task.truth.shape
        assert np.abs(frames.numpy().astype(int) - task.truth).mean() < 12


def test_queries_come_along_when_asked_for(tmp_path):
    out = tmp_path / "queries.tar"
    write_tar(export("tuning", len(families()), 1, queries=True), out)
    held_out = read_held_out(str(out))
    for raw, held in zip(read_samples(str(out)), held_out, strict=True):
        assert held.meta is not None
        assert decode(raw).queries == task_of(held.meta).queries


def test_another_seed_gives_other_tasks_and_the_same_seed_the_same():
    def keys(seed):
        return [sample.key for sample in export("train", 13, seed)]

    assert keys(0) == keys(0)
    assert not set(keys(0)) & set(keys(1))


@pytest.mark.parametrize(("split", "n"), [("dev", 3), ("test", 0)])
def test_a_wrong_export_is_refused_at_once(split, n):
    with pytest.raises(ValueError, match="got"):
        export(split, n, 0)


def test_the_command_exports_tabulates_and_draws(tmp_path, capsys):
    assert main(["export", str(tmp_path / "a.tar"), "--n", "3", "--seed", "2"]) == 0
    assert len([decode(raw) for raw in read_samples(str(tmp_path / "a.tar"))]) == 3
    assert main(["table", "--n", "1", "--split", "tuning"]) == 0
    assert "| reach |" in capsys.readouterr().out
    assert main(["sheets", str(tmp_path / "sheets"), "--n", "1"]) == 0
    names = {path.stem for path in (tmp_path / "sheets").glob("*.png")}
    assert names == {family.name for family in families()}
    assert main(["table", "--n", "0"]) == 2
    assert "--n: got 0" in capsys.readouterr().err


def test_the_world_needs_neither_torch_nor_pictures_to_be_imported():
    code = (
        "import sys, vlmteach.mini.world as w; t = w.make('reach', 'train', 0); "
        "w.score(t, t.truth); "
        "print([m for m in ('torch', 'PIL', 'av', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
