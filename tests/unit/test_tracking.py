"""W&B decides nothing: what it fails at costs its curves, and never a result."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from vlmteach import tracking
from vlmteach.config import WandbConfig
from vlmteach.tracking import Tracker
from vlmteach.types import Compute, Outcome

OUTCOME = Outcome(
    key="k", digest="0", method="base", seed=0, compute=Compute(1.0, 4, 0, 0, 0.5), kept_loss=0.1
)
RECORD = {
    **{"key": "k", "stop_reason": "cap", "steps": 1, "kept_step": 0, "kept_loss": 0.1},
    "readings": [{"step": 0, "loss": 0.3}],
}


class Run:
    """A run of W&B that fails where it is told to."""

    def __init__(self, fails, seen):
        self.fails = fails
        self.seen = seen
        self.summary = self
        self.config = self

    def _called(self, name):
        self.seen["calls"].append(name)
        if name in self.fails:
            raise self.fails[name]

    def log(self, metrics):
        self._called("log")

    def update(self, values, **_):
        self._called("summary")

    def finish(self, exit_code=0):
        self._called("finish")


@pytest.fixture
def wandb(monkeypatch):
    """W&B with `init` replaced; `fails` says what raises, `seen` what was asked for."""
    import wandb

    seen = {"modes": [], "given": [], "env": [], "temp": [], "calls": []}
    fails = {}

    def init(**given):
        seen["modes"].append(given["mode"])
        seen["given"].append(given)
        seen["env"].append({k: v for k, v in os.environ.items() if k.startswith("WANDB_")})
        seen["temp"].append(tempfile.gettempdir())
        if (error := fails.get(given["mode"])) is not None:
            raise error
        return Run(fails, seen)

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "login", lambda **_: fails.get("login", True))
    monkeypatch.setattr(wandb, "teardown", lambda: seen["calls"].append("teardown"))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return fails, seen


def carry_through(out, mode: Any = "online", **config):
    """Two instances and the summary, as a rank has them; returns the tracker."""
    tracker = Tracker(WandbConfig(mode=mode, **config), out, {})
    for key in ("one", "two"):
        with tracker.instance(key) as logger:
            if logger is not None:
                logger.log_metrics({"loss": 1.0}, 0)
                logger.log_hyperparams({"a": 1})
            tracker.close(logger, OUTCOME)
    tracker.summarize([RECORD])
    return tracker


UNREACHABLE = ConnectionRefusedError("no route")


@pytest.mark.parametrize("where", ["online", "log", "summary", "finish"])
@pytest.mark.parametrize(
    "error", [TimeoutError("took too long"), UNREACHABLE, OSError(28, "disk full"), KeyError("x")]
)
def test_a_failure_of_wandb_is_told_once_and_goes_on_offline(wandb, where, error, tmp_path, capsys):
    fails, seen = wandb
    fails[where] = error
    tracker = carry_through(tmp_path / "out")
    told = capsys.readouterr().err
    assert told.count("warning: W&B") == 1
    assert type(error).__name__ in told
    assert seen["modes"][0] == "online"
    assert set(seen["modes"][1:]) == {"offline"}
    assert tracker.mode == ("offline" if where == "online" else "disabled")  # failed ever since


def test_where_offline_fails_too_there_is_no_wandb(wandb, tmp_path, capsys):
    fails, seen = wandb
    fails |= {"online": UNREACHABLE, "offline": OSError(28, "disk full")}
    assert carry_through(tmp_path / "out").mode == "disabled"
    assert seen["modes"] == ["online", "offline", "offline"]
    assert capsys.readouterr().err.count("warning: W&B") == 1


def test_a_dead_service_is_given_up_for_a_new_one(wandb, tmp_path):
    from wandb.sdk.mailbox import HandleAbandonedError

    fails, seen = wandb
    fails["finish"] = HandleAbandonedError()
    with Tracker(WandbConfig(mode="offline"), tmp_path / "out", {}).instance("one"):
        pass
    assert seen["calls"] == ["finish", "teardown"]


@pytest.mark.parametrize("kind", ["file", "read-only"])
def test_a_folder_that_takes_nothing_is_told_once(wandb, kind, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    if kind == "file":
        (out / "wandb").write_text("")
    else:  # to the user who owns all, no folder is read-only

        def refuse(self, **_):
            raise PermissionError(13, "read-only", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
    assert carry_through(out, mode="offline").mode == "disabled"
    assert capsys.readouterr().err.count("warning: W&B") == 1
    assert wandb[1]["modes"] == []


def test_wandb_that_cannot_be_imported_is_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert carry_through(tmp_path / "out").mode == "disabled"
    assert capsys.readouterr().err.count("warning: W&B") == 1


def test_what_an_instance_raises_is_passed_on(wandb, tmp_path):
    fails, seen = wandb
    fails["finish"] = UNREACHABLE
    tracker = Tracker(WandbConfig(mode="online"), tmp_path / "out", {})
    with pytest.raises(SystemExit), tracker.instance("one"):
        raise SystemExit(143)
    assert seen["calls"][0] == "finish"


def test_another_runs_identity_and_places_are_hidden_from_wandb(wandb, tmp_path, monkeypatch):
    hostile = {
        **{"WANDB_RUN_ID": "theirs", "WANDB_RESUME": "must", "WANDB_SWEEP_ID": "s"},
        **{"WANDB_FORK_FROM": "x", "WANDB_SERVICE": "gone", "WANDB_INIT_TIMEOUT": "abc"},
        **{"WANDB_DIR": "/elsewhere", "WANDB__FILES_DIR": "/elsewhere", "WANDB_NAME": "n"},
        **{"WANDB_RUN_GROUP": "g", "WANDB_PROJECT": "a/b", "WANDB_LAUNCH": "true"},
    }
    heeded = {"WANDB_API_KEY": "key", "WANDB_BASE_URL": "http://localhost", "WANDB_ENTITY": "we"}
    for name, value in {**hostile, **heeded}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    carry_through(tmp_path / "out")
    assert dict(os.environ) == before
    seen = wandb[1]
    out = str(tmp_path / "out" / "wandb" / "scratch")
    for env, temp in zip(seen["env"], seen["temp"], strict=True):
        places = {name: env.pop(f"WANDB_{name}_DIR") for name in ("CACHE", "DATA", "ARTIFACT")}
        assert env == heeded
        assert places.pop("DATA") == str(tmp_path / "out" / "wandb")  # waits for `wandb sync`
        assert all(place.startswith(out) for place in (temp, *places.values()))
    assert not tempfile.gettempdir().startswith(out)
    ids = [given["id"] for given in seen["given"]]
    assert len(set(ids)) == 3
    assert [given["name"] for given in seen["given"]] == ["one", "two", "summary"]
    assert {given["group"] for given in seen["given"]} == {"out"}


@pytest.mark.parametrize("key", ["a" * 300, "bad\udc80byte", "esc\x1b[2J", "line\nbreak"])
def test_any_key_makes_a_name_that_wandb_takes(wandb, key, tmp_path):
    with Tracker(WandbConfig(mode="offline"), tmp_path, {}).instance(key):
        pass
    name = wandb[1]["given"][0]["name"]
    assert 0 < len(name) <= 128
    assert name.isprintable()


def test_folders_of_killed_processes_go_with_the_summary(wandb, tmp_path):
    left = tmp_path / "out" / "wandb" / "scratch" / "killed" / "tmpwandb-media"
    left.mkdir(parents=True)
    carry_through(tmp_path / "out")
    assert not left.parent.exists()


@pytest.mark.parametrize(
    ("mode", "said", "resolved"),
    [
        *(("auto", None, "auto"), ("auto", "dryrun", "offline"), ("auto", "disabled", "disabled")),
        *(("auto", "run", "online"), ("online", "disabled", "online"), ("online", "x", "online")),
    ],
)
def test_the_mode_is_the_configs_or_that_of_the_environment(
    wandb, mode, said, resolved, tmp_path, monkeypatch
):
    if said:
        monkeypatch.setenv("WANDB_MODE", said)
    assert Tracker(WandbConfig(mode=mode), tmp_path, {}).mode == resolved


@pytest.mark.parametrize("logged_in", [True, False])
def test_auto_is_online_where_somebody_is_logged_in(wandb, logged_in, tmp_path):
    fails, seen = wandb
    fails["login"] = logged_in
    carry_through(tmp_path / "out", mode="auto")
    assert set(seen["modes"]) == {"online" if logged_in else "offline"}


@pytest.mark.parametrize("name", ["", " ", "a/b", "what?", "50%", "a:b", "x" * 129, "a\nb", "\x1b"])
def test_a_bad_project_is_refused_at_the_start(name):
    with pytest.raises(ValueError, match=r"wandb.project: got .*, expected 1 to 128 printable"):
        WandbConfig(project=name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_a_bad_group_is_refused_at_the_start(name):
    assert WandbConfig(group="a/b").group == "a/b"
    with pytest.raises(ValueError, match=r"wandb.group: got .*, expected 1 to 128 printable"):
        WandbConfig(group=name)


@pytest.mark.parametrize(
    ("variable", "value"), [("WANDB_ENTITY", "a/b"), ("WANDB_ENTITY", "a b\n"), ("WANDB_MODE", "x")]
)
def test_a_bad_environment_is_refused_at_the_start(variable, value, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=f"{variable}: got .*expected"):
        Tracker(WandbConfig(), tmp_path, {})
    monkeypatch.delenv("WANDB_MODE", raising=False)
    Tracker(WandbConfig(mode="disabled"), tmp_path, {})


def test_a_server_that_is_not_there(tmp_path, monkeypatch, capfd):
    """The real W&B, its process and its files."""
    import wandb

    monkeypatch.setattr(tracking, "OPEN_SECONDS", 0.3)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    try:
        tracker = carry_through(tmp_path / "out")
    finally:
        wandb.teardown()
    assert tracker.mode == "offline"
    assert capfd.readouterr().err.count("warning: W&B") == 1
    assert len(list((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))) == 3
    assert not [*(tmp_path / "out").rglob("*theirs*")]
