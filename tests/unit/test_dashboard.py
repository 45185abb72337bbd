"""`vlmteach dashboard`: what it asks W&B's server for, and how it ends where there is none."""

import json

import pytest
import wandb
from wandb_workspaces.workspaces import Workspace, internal

from vlmteach import dashboard, wandb_media
from vlmteach.micro_fit import MicroFit
from vlmteach.rows import LOSSES
from vlmteach.types import Reading


@pytest.fixture
def asked(monkeypatch):
    """What would go to the server, which answers with a view."""
    views = []

    def upsert(view):
        views.append(json.loads(view.model_dump_json(by_alias=True)))
        return {"upsertView": {"view": {"name": view.name, "id": "1"}}}

    monkeypatch.setattr(internal, "upsert_view2", upsert)
    address = property(lambda self: f"https://wandb.ai/{self.entity}/{self.project}")
    monkeypatch.setattr(Workspace, "url", address)  # which asks the server for its own
    monkeypatch.setattr(wandb, "login", lambda **_: True)
    return views


def test_the_workspace_shows_what_a_fit_logs(asked, capsys, monkeypatch):
    assert dashboard.main(["--entity", "me", "--project", "videos", "--group", "demo"]) == 0
    assert capsys.readouterr().out.endswith("https://wandb.ai/me/videos\n")
    (view,) = asked
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    drawn = {name for s in sections for p in s["panels"] for name in p["config"].get("metrics", [])}
    logged = curves_of_a_reading(monkeypatch) | {"gradient_norm"}
    assert drawn == logged
    clips = [p["config"].get("mediaKeys", []) for s in sections for p in s["panels"]]
    shown = {name for names in clips for name in names}
    assert shown == {*wandb_media.CLIPS, "prediction/first", "prediction/last"}
    (runs,) = view["spec"]["section"]["runSets"]
    assert '"demo"' in json.dumps(runs["filters"])
    assert {"first_loss", "kept_loss"} <= {*dashboard.COLUMNS} & {*LOSSES}


def curves_of_a_reading(monkeypatch):
    fit = MicroFit.__new__(MicroFit)
    roles = type("Objective", (), {"query_roles": ("goal", "process")})
    fit.__dict__["objective"] = roles
    return set(MicroFit._curves(fit, Reading(step=0, loss=1.0, p_yes=(0.5, 0.5), shares={})))


def test_the_entity_is_the_one_named_by_the_environment_or_the_login(asked, monkeypatch):
    monkeypatch.setenv("WANDB_ENTITY", "team")
    dashboard.save("videos", None, None)
    monkeypatch.delenv("WANDB_ENTITY")
    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"default_entity": "me"}))
    dashboard.save("videos", None, None)
    monkeypatch.setattr(wandb, "Api", lambda: type("Api", (), {"default_entity": None}))
    with pytest.raises(ValueError, match="--entity: got none"):
        dashboard.save("videos", None, None)
    assert [view["entity"] for view in asked] == ["team", "me"]


def test_what_cannot_be_made_is_one_line(asked, monkeypatch, capsys):
    def refuse(view):
        raise RuntimeError("404\nnot found")

    monkeypatch.setattr(internal, "upsert_view2", refuse)
    assert dashboard.main(["--entity", "me"]) == 2
    assert "error: W&B: RuntimeError: 404 not found; expected a server" in capsys.readouterr().err
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    assert dashboard.main([]) == 2
    assert "got no login" in capsys.readouterr().err
    assert dashboard.main(["--project", "a/b"]) == 2
    assert "--project: got 'a/b'" in capsys.readouterr().err
