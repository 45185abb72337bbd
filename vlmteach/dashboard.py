"""`vlmteach dashboard`: a workspace at W&B, laid out for the curves and clips that a fit logs.

Nothing heavy is imported before the arguments have been read.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vlmteach import exits
from vlmteach.config import WandbConfig, check_wandb_name

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

CURVES = {
    "Loss": ("loss", "query_loss/goal", "query_loss/process"),
    "P(yes)": ("p_yes/goal", "p_yes/process"),
    "Gradient": ("gradient_norm",),
}
"""Section -> what a fit logs at each reading; a line an instance."""
MEDIA = ("base", "fitted", "prediction/first", "prediction/last")
COLUMNS = ("stop_reason", "steps", "first_loss", "kept_loss")
"""Of the table of runs: what an instance's summary says of its fit."""
NAME = "vlmteach"


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    cli = argparse.ArgumentParser(
        prog="vlmteach dashboard",
        description="Makes a workspace in a W&B project: losses and P(yes) of all instances over "
        "each other, their clips and first predictions. It asks W&B's server for it.",
        allow_abbrev=False,
    )
    cli.add_argument(
        "--project", default=WandbConfig().project, help="of the runs (default: %(default)s)"
    )
    cli.add_argument("--entity", help="user or team (default: WANDB_ENTITY, or who is logged in)")
    cli.add_argument("--group", help="show the runs of one group only: a run's folder by its name")
    return cli


def main(words: Sequence[str] | None = None) -> int:
    """Makes the workspace and prints its address; 0, or 2 when it could not be made."""
    own = parser().parse_args(sys.argv[1:] if words is None else list(words))
    try:
        check_wandb_name("--project", own.project)
        if own.entity is not None:
            check_wandb_name("--entity", own.entity)
        print(save(own.project, own.entity, own.group))
    except (ValueError, OSError) as error:
        return exits.refused(error, "(vlmteach dashboard --help lists the options)")
    return 0


def save(project: str, entity: str | None, group: str | None) -> str:
    """Makes the workspace on W&B's server.

    Returns:
        Its address.

    Raises:
        ValueError: nobody is logged in, `wandb-workspaces` is missing, or the server refuses.
    """
    if find_spec("wandb_workspaces") is None:
        raise ValueError(
            "vlmteach dashboard: got no wandb-workspaces, which lays workspaces out; "
            "pip install 'vlmteach[dashboard]'"
        )
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise ValueError("W&B: got no login, expected one; run wandb login, or set WANDB_API_KEY")
    try:
        owner = entity or os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
        if owner is None:
            raise ValueError("--entity: got none, and W&B names no default; name a user or a team")
        return workspace(owner, project, group).save().url
    except ValueError:
        raise
    except Exception as error:  # the network's, GraphQL's and W&B's own, of many classes
        told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"W&B: {told}; expected a server that keeps workspaces, and leave to write in "
            f"{entity or 'your'}/{project}: curves are on the project's page all the same"
        ) from error


def workspace(entity: str, project: str, group: str | None = None) -> Workspace:
    """The workspace, not saved yet.

    Args:
        entity: user or team.
        project: of the runs.
        group: whose runs are shown; None: all.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(
            name=title,
            is_open=True,
            panels=[panels.LinePlot(title=name, y=[name], max_runs_to_show=100) for name in names],
        )
        for title, names in CURVES.items()
    ]
    clips = panels.MediaBrowser(title="clips and predictions", media_keys=list(MEDIA))
    sections.append(workspaces.Section(name="Clips", is_open=True, panels=[clips]))
    shown = [workspaces.Metric("Group") == group] if group else []
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{NAME} {group}" if group else NAME,
        sections=sections,
        runset_settings=workspaces.RunsetSettings(
            filters=shown, pinned_columns=[f"summary:{name}" for name in COLUMNS]
        ),
    )
