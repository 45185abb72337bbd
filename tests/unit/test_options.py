"""Words and preset files to a config."""

import argparse
import dataclasses

import pytest

from vlmteach import job
from vlmteach.config import ClassConfig, Config, RewardConfig
from vlmteach.job import Binding, Job, changes
from vlmteach.ledger import Ledger
from vlmteach.options import MOVED, parse, read_config
from vlmteach.presets import PRESETS


def one(path, **init_args):
    return ClassConfig(class_path=path, init_args=init_args)


def reward(path, weight=1.0, **init_args):
    return RewardConfig(class_path=path, weight=weight, init_args=init_args)


def _words(text):
    """A command line's words; a blank after a colon is part of one."""
    return [word.replace("\x00", " ") for word in text.replace(": ", ":\x00").split()]


@pytest.fixture
def write(tmp_path):
    def go(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return go


def test_without_words_it_is_the_embedded_default():
    assert read_config([]) == read_config(["--config", "mini"]) != Config()


def test_options_win_wherever_they_stand():
    words = ["--fit.steps", "3", "--config=random", "--clip.fps=9"]
    config = read_config(words)
    assert (config.fit.steps, config.clip.fps, config.clip.frames) == (3, 9.0, 9)


def test_a_base_is_changed_entry_by_entry(write):
    write("base: random\nfit: {steps: 3, shift: 5e-2}\n", "first.yaml")
    config = read_config(["--config", write("base: first.yaml\nfit: {steps: 4}\n")])
    random = read_config(["--config", "random"])
    fit = dataclasses.replace(random.fit, steps=4, shift=0.05)
    assert config == dataclasses.replace(random, fit=fit)


def test_lists_and_classes_are_replaced_whole(write):
    write("optimizer: {class_path: a.B, init_args: {x: 1}}\nreasoner: {ladder: [9, 8]}\n", "b.yaml")
    top = write("base: b.yaml\noptimizer: {class_path: a.B}\nreasoner: {ladder: [7]}\n")
    config = read_config(["--config", top])
    assert config.optimizer == one("a.B")
    assert config.reasoner.ladder == (7.0,)


def test_of_two_files_the_later_is_laid_over_the_earlier(write):
    config = read_config(["--config", "random", "--config", write("fit: {steps: 2}")])
    assert (config.fit.steps, config.fit.learning_rate) == (2, 1e-2)


def test_a_preset_of_a_base_is_that_base_with_its_changes():
    turbo, other = (
        read_config(["--config", n]) for n in ("wan22-turbo", "wan22-turbo-even-ladder")
    )
    ladder = (1000.0, 750.0, 500.0, 250.0)
    assert other == dataclasses.replace(
        turbo, reasoner=dataclasses.replace(turbo.reasoner, ladder=ladder)
    )
    assert read_config(["--config", "wan22-internvl"]).reasoner == turbo.reasoner


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("base: mine.yaml", "circle mine.yaml -> mine.yaml"),
        ("fit: &a {steps: 2}\nclip: *a\n", "an alias"),
        ("a: &a {x: 1}\nfit: {<<: *a}\n", "an alias"),
        ("fit: " + "[" * 1000, "expected YAML"),
        ("#" * 70_000, "more than 65536 bytes"),
        ("clip: {height: -32, width: 32}", "clip.height: got -32, expected at least 1"),
        ("clip: {height: 32, width: 0}", "clip.width: got 0, expected at least 1"),
        ("clip: {fps: 1.0e-9}", "clip.fps: got 1e-09, expected 0.01 to 1000"),
        ("clip: {fps: .inf}", "clip.fps: got inf"),
        ("clip: {max_pixels: 0}", "clip.max_pixels: got 0"),
        ("base: [random]", "one preset's name"),
        ("base: nowhere", "expected a YAML file or a preset's name"),
        ("fit: {stps: 3}", "perhaps 'fit.steps'"),
        ("fit: 3", "a mapping of its fields"),
        ("- fit", "a mapping of fields"),
        ("fit: {", "expected YAML"),
        ("query: {attempts: 3}", "--query.max_replies"),
        ("fit: {optimizer: adamw}", "--optimizer"),
        ("method: teacher", "--method micro_fit"),
        ("optimizer: {path: a.B}", "class_path"),
        ("callbacks: [{class_path: a.B, weight: 2}]", "init_args"),
        ("reward: {class_path: a.B, weight: much}", "a number"),
        ("reward: {class_path: a.B, init_args: {on: 2020-01-01}}", "a date in quotes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(write, text, told):
    path = write(text)
    with pytest.raises(ValueError, match=r"got|moved") as refusal:
        read_config(["--config", path])
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fit.stps", "3"], "perhaps 'fit.steps'"),
        (["--fitt.steps=3"], "perhaps 'fit.steps'"),
        (["--fit.steps", "x"], "Got value: x"),
        (["--fit.steps"], "got no value"),
        (["--optimizer.eps", "--fit.steps=3"], "got no value"),
        (["stray"], "got 'stray'"),
        (["--optimizer", "SGD"], "package.module.Class"),
        (["--optimizer", "null"], "such as torch.optim.AdamW"),
        (["--optimizer+=a.B"], "expected one optimizer"),
        (["--scheduler.total_iters", "3"], "expected --scheduler package.module.Class before"),
        (["--reward.weight", "3"], "expected --reward package.module.Class before"),
        (["--reward", "a.B", "--reward.weight", "heavy"], "a number"),
        (["--optimizer.betas", "[1"], "expected YAML"),
        (["--config", "nowhere"], "expected a YAML file or a preset's name"),
    ],
)
def test_words_that_do_not_fit_are_refused(words, told):
    with pytest.raises(ValueError, match="ot ") as refusal:
        read_config(words)
    assert told in str(refusal.value)


@pytest.mark.parametrize("moved", MOVED)
def test_moved_spellings_tell_the_new_one(moved):
    name, _, value = moved.partition("=")
    with pytest.raises(ValueError, match=r"moved; write ") as refusal:
        read_config([f"--{name}", value or "3"])
    assert MOVED[moved] in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--optimizer.weight_decay 0.1", one("torch.optim.AdamW", weight_decay=0.1)),
        ("--optimizer torch.optim.AdamW", one("torch.optim.AdamW", weight_decay=0.0)),
        ("--optimizer o.SGD --optimizer.momentum 0.9", one("o.SGD", momentum=0.9)),
        ("--optimizer=a.B --optimizer.init_args.eps=1e-3", one("a.B", eps=1e-3)),
        ("--optimizer=a.B --optimizer.betas=[0.9,0.99]", one("a.B", betas=[0.9, 0.99])),
        ("--optimizer=a.B --optimizer.deep.er=true", one("a.B", deep={"er": True})),
        ("--optimizer.class_path=a.B --optimizer.init_args={x: no}", one("a.B", x=False)),
        ('--optimizer={"class_path":"a.B","init_args":{"x":-1}}', one("a.B", x=-1)),
    ],
)  # fmt: skip
def test_one_class(words, expected):
    assert read_config(_words(words)).optimizer == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--reward m.A --reward.weight 0.2 --reward.name x", (reward("m.A", 0.2, name="x"),)),
        ("--reward m.A --reward m.B --reward.k 3", (reward("m.A"), reward("m.B", k=3))),
        ("--reward=m.A --reward+=m.B", (reward("m.A"), reward("m.B"))),
        ('--reward [{"class_path":"m.A","weight":2},"m.B"]', (reward("m.A", 2.0), reward("m.B"))),
        ("--reward m.A --reward []", ()),
    ],
)  # fmt: skip
def test_several_classes(words, expected):
    assert read_config(_words(words)).reward == expected


def test_a_class_may_have_a_weight_of_its_own():
    (one,) = read_config(["--reward", "m.A", "--reward.init_args.weight", "4"]).reward
    assert (one.weight, one.init_args) == (1.0, {"weight": 4})


def test_a_list_of_a_file_is_replaced_by_a_word_or_grows_with_plus(write):
    path = write("callbacks: [m.A, {class_path: m.B, init_args: {k: 1}}]\nscheduler: m.S")
    config = read_config(["--config", path])
    assert config.callbacks == (one("m.A"), one("m.B", k=1))
    assert config.scheduler == one("m.S")
    assert read_config(["--config", path, "--scheduler", "null"]).scheduler is None
    assert read_config(["--config", path, "--callbacks", "m.C"]).callbacks == (one("m.C"),)
    more = read_config(["--config", path, "--callbacks.k", "2", "--callbacks+", "m.C"])
    assert more.callbacks == (one("m.A"), one("m.B", k=2), one("m.C"))


CLASSES = [
    *("--optimizer=torch.optim.AdamW", "--optimizer.betas=[0.9, 0.99]", "--optimizer.eps=1e-9"),
    *("--scheduler=torch.optim.lr_scheduler.LinearLR", "--scheduler.total_iters=5"),
    *("--reward=m.A", "--reward.weight=0.2", "--reward=m.B", "--reward.name=null"),
    *("--callbacks=m.C", "--callbacks.every=3"),
]


@pytest.fixture
def bind(monkeypatch):
    monkeypatch.setattr(job, "inputs_of", lambda *_: {})  # checkpoints of presets are not read

    def go(config, out):
        ledger = Ledger(out, launch="a", max_deaths=3)
        Binding(Job(config, (), out), {}).bind(ledger, [])

    return go


@pytest.mark.parametrize("preset", sorted(p.stem for p in PRESETS.glob("*.yaml")))
@pytest.mark.parametrize("words", [[], CLASSES], ids=["plain", "classes"])
def test_config_yaml_is_read_back_the_same(bind, tmp_path, preset, words):
    config = read_config(["--config", preset, *words])
    bind(config, tmp_path)
    assert read_config(["--config", str(tmp_path / "config.yaml")]) == config


def test_a_changed_class_is_another_config(bind, tmp_path):
    config = read_config(CLASSES)
    bind(config, tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "done.json").write_text("{}")
    assert changes(config, tmp_path) == []
    other = read_config([*CLASSES, "--reward.name=y", "--optimizer.eps=1e-8"])
    assert [name for name, *_ in changes(other, tmp_path)] == ["optimizer.init_args.eps", "reward"]
    digests = {Job(c, (), tmp_path).digest() for c in (config, other, read_config([]))}
    assert len(digests) == 3


def command():
    cli = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    cli.add_argument("--out")
    cli.add_argument("words", nargs="*")
    return cli


def test_a_command_keeps_its_own_words():
    words = ["--reward", "m.A", "mine", "--out", "here", "--fit.steps", "3"]
    own, config = parse(command(), words)
    assert (own.words, own.out) == (["mine"], "here")
    assert (config.fit.steps, config.reward) == (3, (reward("m.A"),))


def test_a_command_refuses_words_that_nobody_takes():
    with pytest.raises(ValueError, match="--help lists all"):
        parse(command(), ["--otu", "x"])


def test_help_tells_of_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(command(), ["--help"])
    told = capsys.readouterr().out
    assert stop.value.code == 0
    for name in ("--out", "--config", "--optimizer", "--scheduler", "--reward", "--callbacks"):
        assert f"  {name}" in told
    assert "--fit.steps STEPS     N, the cap on updates." in told
    assert told.index("--out") < told.index("--config") < told.index("--optimizer")
    assert told.index("--callbacks") < told.index("--method") < told.index("--fit.steps")


@pytest.mark.parametrize(
    ("word", "read"),
    [("true", "full"), ("false", "none"), ("none", "none"), ("surrogate", "surrogate")],
)
def test_the_base_video_is_a_word_or_as_it_was_said_before(write, word, read):
    """Also in the `config.yaml` that an earlier version left."""
    file = write(f"base: mini\nrun:\n  base_video: {word}\n")
    for words in ([f"--run.base_video={word}"], ["--config", str(file)]):
        assert read_config(words).run.base_video == read
    with pytest.raises(ValueError, match=r"run\.base_video.*surrogate.*expected full or none"):
        read_config(["--run.base_video=surrogate", "--decoder.family=full"])


@pytest.mark.parametrize(
    "word",
    [
        *("--run.threads=0", "--run.threads=-1", "--run.threads=1000000000", "--run.max_deaths=0"),
        *("--lora.rank=0", "--lora.rank=1000000", "--lora.alpha=.inf", "--lora.alpha=.nan"),
        *("--clip.height=-32", "--clip.fps=.inf", "--clip.fps=.nan", "--clip.max_pixels=0"),
        *("--fit.learning_rate=.inf", "--fit.learning_rate=.nan", "--fit.keep_weight=.inf"),
        *("--fit.steps=-1", "--fit.threshold=.nan", "--fit.goal_weight=.nan", "--fit.noises=0"),
        *("--teacher.frame_pixels=0", "--teacher.frames=-2", "--fit.shift=.nan"),
        "--teacher.video_tokens=0",
        *("--wandb.project=a/b", "--wandb.group="),
    ],
)
def test_a_number_out_of_bounds_is_refused_in_a_line(word):
    name = word.removeprefix("--").partition("=")[0]
    with pytest.raises(ValueError, match=rf"{name}.*got .*expected") as refused:
        read_config(["--clip.width=32", word] if "height" in word else [word])
    assert "\n" not in str(refused.value)
