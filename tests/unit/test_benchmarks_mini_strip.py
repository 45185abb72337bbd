"""The picture of one instance, drawn from a made-up run of a real task."""

import pytest
from PIL import Image

from benchmarks.mini.strip import COLUMNS, SIDE, main, rows_of
from vlmteach.instances.write import write_tar
from vlmteach.ledger import folder_name
from vlmteach.mini import world
from vlmteach.mini.world.export import sample_tasks
from vlmteach.record import write_json
from vlmteach.video import write_video

(TASK,) = sample_tasks("train", 1, 0)


@pytest.fixture
def run(tmp_path):
    """A finished instance whose base stays at the first frame and whose clip is the truth."""
    write_tar(world.export("train", 1, 0), tmp_path / "tasks.tar")
    folder = tmp_path / folder_name(TASK.key)
    folder.mkdir()
    write_video(folder / "base.mp4", TASK.truth[:1].repeat(len(TASK.truth), axis=0), 8.0)
    write_video(folder / "clip.mp4", TASK.truth, 8.0)
    fit = {
        "queries": {"queries": [{"role": "process"}, {"role": "goal"}]},
        "readings": [{"step": 0, "p_yes": [0.9, 0.1]}, {"step": 1, "p_yes": [0.9, 0.8]}],
        "kept_step": 1,
    }
    write_json(folder / "fit.json", fit)
    write_json(folder / "queries.json", {"goal": "Is it done?"})
    write_json(folder / "done.json", {})
    return tmp_path


def test_rows_say_what_the_teacher_and_the_rules_say(run):
    base, fitted, truth = rows_of(run, TASK.key, [str(run / "tasks.tar")])
    assert (base.p_yes, fitted.p_yes, truth.p_yes) == (0.1, 0.8, None)
    assert base.score is not None
    assert not base.score.strict
    assert fitted.score is not None
    assert fitted.score.strict
    assert truth.score is None


def test_the_command_draws_a_row_for_base_fitted_and_truth(run):
    out = run / "strip.png"
    assert main([str(run), TASK.key, str(out), "--instances", str(run / "tasks.tar")]) == 0
    picture = Image.open(out)
    assert picture.width > COLUMNS * SIDE
    assert picture.height > 3 * SIDE
    assert len(picture.getcolors(1 << 16) or []) > 3


def test_an_instance_the_run_does_not_have_is_refused(run, capsys):
    words = [str(run), "test/none/1", str(run / "x.png"), "--instances", str(run / "tasks.tar")]
    assert main(words) == 2
    assert "fit.json" in capsys.readouterr().err
    assert not (run / "x.png").exists()
