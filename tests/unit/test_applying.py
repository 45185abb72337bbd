"""`vlmteach apply`: scales, seeds, prompts and many instances, with the adapters of a run."""

import json
from dataclasses import replace

import pytest
from PIL import Image

import vlmteach
from vlmteach import cli, entrance
from vlmteach.adapter_notes import Base
from vlmteach.guard import read_guard
from vlmteach.record import read_json
from vlmteach.scales import read_scales
from vlmteach.types import Query
from vlmteach.video import read_video
from vlmteach.watch import watch

OPTIONS = {
    "clip.frames": 5,
    "clip.max_pixels": 1024,
    "teacher.frames": 4,
    "lora.rank": 2,
    "fit.steps": 1,
    "query.source": "generic",
    "wandb.mode": "disabled",
}
TASKS = {"a/one": "Move the ball.", "two": "Turn the box."}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two samples with one first frame, as loose files."""
    folder = tmp_path_factory.mktemp("data")
    picture = Image.new("RGB", (48, 48), "white")
    picture.paste("red", (5, 15, 17, 27))
    for key, prompt in TASKS.items():
        (folder / key).parent.mkdir(exist_ok=True)
        (folder / f"{key}.prompt.txt").write_text(prompt)
        picture.save(folder / f"{key}.first.png")
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    vlmteach.run(data, "random", out, OPTIONS)
    return out


@pytest.fixture
def apply(monkeypatch, tmp_path, models):
    """The command, with models that are loaded already."""
    monkeypatch.setattr(entrance, "load", lambda config: entrance.Loaded(config, models.models))

    class Apply:
        out = tmp_path / "out"

        def __call__(self, *words):
            return cli.main(["apply", *map(str, words), "--out", str(self.out)])

    return Apply()


@pytest.fixture(scope="module")
def models():
    return vlmteach.load("random", OPTIONS, device="cpu")


WORDS = ["--config", "random", *(f"--{name}={value}" for name, value in OPTIONS.items())]


def clips(folder):
    return {
        path.parent.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.glob("**/clip.mp4")
    }


def test_every_instance_gets_its_own_adapter_of_a_run_and_so_its_clip(
    apply, data, run, models, monkeypatch
):
    reasoner, told = models.models.reasoner, []
    encode = reasoner.encode

    def noted(prompt, first_frame, clip, ahead=()):
        told.append((prompt, *ahead))
        return encode(prompt, first_frame, clip, ahead)

    monkeypatch.setattr(reasoner, "encode", noted)
    assert apply("--instances", data, "--adapter", run, *WORDS) == 0
    assert clips(apply.out) == clips(run)
    rows = {row["key"]: row for row in read_json(apply.out / "applied.json")}
    assert {key: row["prompt"] for key, row in rows.items()} == TASKS
    assert rows["a/one"]["folder"] == "a__one"
    one, two = TASKS.values()
    assert told == [(two, one), (one,)]  # each with the prompts that follow
    assert (rows["two"]["scale"], rows["two"]["seed"], rows["two"]["candidate"]) == (1.0, 0, 0)


def test_a_table_of_prompts_with_one_adapter(apply, data, run, tmp_path):
    table = tmp_path / "tasks.csv"
    table.write_text("key,prompt\nx,Paint it.\n,\n")
    words = ["--instances", table, "--adapter", run / "two" / "adapter.safetensors"]
    assert apply(*words, "--reasoner.accepts=both", *WORDS) == 3
    rows = read_json(apply.out / "applied.json")
    assert [row["key"] for row in rows if "error" not in row] == ["x"]
    assert len(rows) == 2
    assert set(clips(apply.out)) == {"x"}


def test_a_sweep_of_scales_and_its_sheet(apply, data, run, capsys):
    given = [data / "two.first.png", TASKS["two"], "--key", "two", "--adapter", run / "two"]
    assert apply(*given, "--scales=0,0.5,1,-1", *WORDS) == 0
    made = clips(apply.out)
    assert set(made) == {"scale-0", "scale-0.5", "scale-1", "scale--1"}
    assert made["scale-0"] == (run / "two" / "base.mp4").read_bytes()
    assert made["scale-1"] == (run / "two" / "clip.mp4").read_bytes()
    assert len(set(made.values())) == 4
    with Image.open(apply.out / "sheet.png") as sheet:
        assert sheet.size == (5 * 96 + 4 * 4, 4 * 96 + 3 * 4)  # the scale and four frames; a gap
        tops = [y * 100 + 48 for y in range(4)]
        assert all(sheet.getpixel((x, tops[0])) == (128,) * 3 for x in range(96, 100))
        assert len({sheet.crop((0, y - 48, 96, y + 48)).tobytes() for y in tops}) == 4
    rows = read_json(apply.out / "applied.json")
    assert [row["scale"] for row in rows] == [0.0, 0.5, 1.0, -1.0]
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == str(apply.out / "sheet.png")
    assert [line.split()[0] for line in told.err.splitlines()[-5:]] == [
        "scale",
        "-1",
        "0",
        "0.5",
        "1",
    ]


def test_teacher_and_judge_look_at_each_scale_and_the_guard_measures_it(apply, data, run, models):
    """The judge is the teacher here, so that both must say the same, and what the fit's own first
    and last words were can be asked of the clips once more."""
    given = [data / "two.first.png", TASKS["two"], "--key", "two", "--adapter", run / "two"]
    judge = models.config.teacher.checkpoint
    assert apply(*given, "--scales=1,0", "--judge", judge, *WORDS) == 0
    found = read_scales(apply.out)
    assert found is not None
    assert found.judge == judge
    assert [each.scale for each in found.scales] == [0.0, 1.0]
    record = read_json(run / "two" / "fit.json")
    queries = [Query(**query) for query in record["queries"]["queries"]]
    for each, name in zip(found.scales, ("base", "clip"), strict=True):
        clip, fps = read_video(run / "two" / f"{name}.mp4")
        asked = watch(models.models.teacher, clip, queries, fps=fps, frames=4)
        assert each.p_yes == each.judge_p_yes == tuple(asked.double().exp().tolist())
    at_0, at_1 = (each.guard for each in found.scales)
    kept = read_guard(run / "two")
    assert kept is not None
    assert at_0 is not None
    assert at_1 == kept.guard
    assert at_0.base == at_0.clip == kept.guard.base
    assert (at_0.first_drift, at_0.still_drift) == (0.0, 0.0)


def test_another_task_is_not_asked_what_the_fit_was_and_needs_no_base(apply, data, run):
    given = [data / "two.first.png", "Paint it.", "--adapter", run / "two"]
    assert apply(*given, "--scales=0.5,1", *WORDS) == 0
    found = read_scales(apply.out)
    assert found is not None
    assert [(each.p_yes, each.judge_p_yes, each.guard) for each in found.scales] == [
        ((), (), None)
    ] * 2


@pytest.mark.parametrize("changed", [["--run.seed=5"], ["--scale=0.5"], ["--candidate=1"]])
def test_another_seed_scale_or_noise_is_another_clip(apply, data, run, changed):
    given = [data / "two.first.png", TASKS["two"], "--key", "two", "--adapter", run / "two"]
    assert apply(*given, *changed, *WORDS) == 0
    assert clips(apply.out)["."] != (run / "two" / "clip.mp4").read_bytes()
    (row,) = read_json(apply.out / "applied.json")
    name, value = changed[0].removeprefix("--run.").removeprefix("--").split("=")
    assert row[name] == json.loads(value)


def test_an_instance_without_an_adapter_is_told_and_the_others_are_made(
    apply, data, run, tmp_path, capsys
):
    (tmp_path / "some" / "two").mkdir(parents=True)
    file = tmp_path / "some" / "two" / "adapter.safetensors"
    file.write_bytes((run / "two" / file.name).read_bytes())
    assert apply("--instances", data, "--adapter", tmp_path / "some", *WORDS) == 3
    assert "a/one: --adapter: got no " in capsys.readouterr().err
    assert set(clips(apply.out)) == {"two"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["go", "--adapter", "none"], "--adapter: got 'none', expected a file"),
        (["--adapter", "none"], "expected [IMAGE] PROMPT, or --instances"),
        (["go", "--instances", "d", "--adapter", "a"], "or --instances without them"),
        (["a", "b", "c", "--adapter", "a"], "expected [IMAGE] PROMPT"),
        (["none.png", "go", "--adapter", "a"], "got 'none.png', expected a file that exists"),
        (["--instances", "no.tar", "--adapter", "."], "no.tar"),
        (["--instances", "no.csv", "--adapter", "."], "no.csv"),
        (["go", "--adapter", "a", "--scales", "1,1.0"], "expected different numbers"),
        (["go", "--adapter", "a", "--scales", "1,nan"], "expected different numbers"),
        (["go", "--adapter", "a", "--scale", "1", "--scales", "1"], "not allowed with"),
        (["go", "--adapter", "a", "--judge", "j"], "--judge: got 'j' without --scales"),
    ],
)
def test_what_cannot_start_is_one_line_before_anything_is_loaded(
    words, told, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(entrance, "load", lambda config: pytest.fail("loaded"))
    assert cli.main(["apply", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "vlmteach apply --help" in error
    assert not (tmp_path / "out").exists()


def test_a_scale_beyond_all_numbers_is_one_line(apply, run, capsys):
    assert apply("go", "--adapter", run / "two", "--scale=1e38", *WORDS) == 2
    assert "clip: got NaN or infinite pixels" in capsys.readouterr().err.splitlines()[0]


def test_a_folder_with_files_is_left_alone(run, capsys):
    words = ["go", "--adapter", str(run / "two"), "--out", str(run)]
    assert cli.main(["apply", *words]) == 2
    assert "which holds files, expected a new folder" in capsys.readouterr().err


def test_an_adapter_of_another_checkpoint_is_a_line(apply, data, run, capsys, monkeypatch):
    load = entrance.load
    monkeypatch.setattr(
        entrance,
        "load",
        lambda c: replace(load(c), models=replace(load(c).models, base=Base("\x1bo", "e" * 64))),
    )
    assert apply("go", "--adapter", run / "two", *WORDS) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "made for" in line]
    assert line.startswith("warning: ")
    assert "\\x1bo" in line
