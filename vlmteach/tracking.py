"""Weights & Biases: one run per instance in one group, and one summary run with all curves.

Every instance logs under the same few names (`loss`, `query_loss/goal`, `p_yes/goal`,
`gradient_norm`, ...), so that a dashboard lays the curves over each other and a project stays
within W&B's bounds on metric names.

W&B never decides whether an instance counts: whatever it fails at is told once per process, and
from there on its curves are kept offline, or not at all where even that fails.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmteach.config import WandbConfig, check_wandb_name
from vlmteach.ledger import folder_name
from vlmteach.loggers import spare
from vlmteach.types import Outcome
from vlmteach.wandb_media import charts, media_of

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

LONGEST_NAME = 128
"""Characters of a run's name or group at W&B."""
OPEN_SECONDS = 8.0
"""To open a run online, before its process goes on offline."""
CLOSE_SECONDS = 10.0
"""To upload what is left of a run when it ends; what is not uploaded then stays on disk."""
HEEDED = {
    f"WANDB_{name}"
    for name in (
        *("API_KEY", "BASE_URL", "APP_URL", "ENTITY", "TAGS", "NOTES", "USERNAME", "USER_EMAIL"),
        *("CONFIG_DIR", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "INSECURE_DISABLE_SSL"),
        *("HTTP_PROXY", "HTTPS_PROXY"),
    )
}
"""Of W&B's variables: who and where. All others are another run's identity (WANDB_RUN_ID, sweeps,
resumption) or places outside the output folder, and are hidden from it."""
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline"}
"""What WANDB_MODE may say besides disabled, and what it means."""


def resolve_mode(mode: str) -> str:
    """`auto` -> what WANDB_MODE says, or still `auto`: online when logged in, else offline.

    Raises:
        ValueError: a WANDB_MODE that W&B does not have.
    """
    chosen = os.environ.get("WANDB_MODE")
    if mode != "auto" or not chosen:
        return mode
    known = {**MODES, "disabled": "disabled"}
    if chosen not in known:
        raise ValueError(
            f"WANDB_MODE: got {chosen!r}, expected one of {', '.join(known)}; correct it, or "
            "name --wandb.mode"
        )
    return known[chosen]


class Tracker:
    """Opens and closes the runs of one process; W&B is not touched before the first.

    Args:
        config: mode, project and group.
        out: the run's output folder; all that W&B writes is kept in `out/wandb`.
        settings: the resolved config, stored with each run.

    Raises:
        ValueError: a mode or an entity in the environment that W&B would not take.
    """

    def __init__(self, config: WandbConfig, out: Path, settings: dict[str, Any]) -> None:
        self.mode = resolve_mode(config.mode)
        self.project = config.project
        self.group = config.group or (out.resolve().name or config.project)[:LONGEST_NAME]
        self.folder = out / "wandb"
        self.settings = settings
        self._scratch = self.folder / "scratch" / uuid.uuid4().hex
        self._told = False
        self._tries_offline = 2
        if self.mode != "disabled" and (entity := os.environ.get("WANDB_ENTITY")):
            check_wandb_name("WANDB_ENTITY", entity)

    @contextmanager
    def spared(self) -> Iterator[None]:
        """What W&B fails at inside a `with` is told once, and the process goes on without it."""
        try:
            yield
        except Exception as error:
            self._step_down(error)

    def _step_down(self, error: Exception) -> None:
        """Online becomes offline, and offline, after one more try, nothing."""
        if not self._told:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(
                f"warning: W&B: {told}; results do not depend on it. Curves go on offline where "
                f"{self.folder} takes them; `wandb sync` uploads them later",
                file=sys.stderr,
                flush=True,
            )
            self._told = True
        with suppress(Exception, SystemExit):
            _drop_dead_service(error)
        self.mode = "offline" if self._tries_offline > 0 else "disabled"
        self._tries_offline -= 1

    def _open(self, name: str, job_type: str) -> Any:
        """A new run of W&B, or None where none can be had."""
        if not self._scratch.exists():  # before W&B is imported, whose own hooks come first then
            atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
        while self.mode != "disabled":
            with self.spared(), self._own_place():
                return self._init(name, job_type)
        return None

    def _init(self, name: str, job_type: str) -> Any:
        import wandb

        if self.mode == "auto":
            logged_in = wandb.login(prompt=False, verify=False)
            self.mode = "online" if logged_in else "offline"
        return wandb.init(
            project=self.project,
            group=self.group,
            name=name if len(name) <= LONGEST_NAME and name.isprintable() else folder_name(name),
            id=uuid.uuid4().hex[:16],
            job_type=job_type,
            dir=self.folder.parent,
            config=self.settings,
            mode=self.mode,  # pyright: ignore[reportArgumentType]
            reinit="create_new",
            settings=wandb.Settings(
                init_timeout=OPEN_SECONDS,
                finish_timeout=CLOSE_SECONDS,
                finish_timeout_raises=True,
                x_save_requirements=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                console="off",
                disable_git=True,
                disable_code=True,
                sagemaker_disable=True,
                silent=True,
            ),
        )

    @contextmanager
    def _own_place(self) -> Iterator[None]:
        """Hides another run's identity from W&B, and keeps what it writes inside the output.

        The folders for temporary files that it makes when imported would otherwise lie in the
        machine's, and stay there when the process is killed.
        """
        # W&B's own folder must exist and be writable, else it falls back to a temporary one.
        self._scratch.mkdir(parents=True, exist_ok=True)
        before = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        place = tempfile.tempdir
        tempfile.tempdir = str(self._scratch)
        try:
            for name in before.keys() - HEEDED:
                del os.environ[name]
            for name in ("CACHE_DIR", "ARTIFACT_DIR"):
                os.environ[f"WANDB_{name}"] = str(self._scratch)
            # The files of the summary's table wait there for `wandb sync`.
            os.environ["WANDB_DATA_DIR"] = str(self.folder)
            yield
        finally:
            tempfile.tempdir = place
            for name in [name for name in os.environ if name.startswith("WANDB_")]:
                del os.environ[name]
            os.environ.update(before)

    @contextmanager
    def instance(self, key: str) -> Iterator[Logger | None]:
        """The Lightning logger of one instance's run; None when there is no W&B."""
        run = self._open(key, "instance")
        if run is None:
            yield None
            return
        failed = True
        try:
            yield self._logger(run)
            failed = False
        finally:
            with self.spared():
                run.finish(exit_code=int(failed))

    def _logger(self, run: Any) -> Logger:
        """Lightning's logger of a run, which raises nothing where a fit calls it."""
        from lightning.pytorch.loggers import WandbLogger

        return spare(WandbLogger(experiment=run), self.spared)

    def close(self, logger: Logger | None, outcome: Outcome) -> None:
        """Adds clips and stills, and puts the outcome into the run's summary, where W&B's tables
        find it."""
        if logger is not None:
            with self.spared(), self._own_place():
                run: Any = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]
                if media := media_of(self.folder.parent / folder_name(outcome.key)):
                    run.log(media)
                run.summary.update(dataclasses.asdict(outcome))

    def summarize(self, records: Sequence[dict[str, Any]]) -> None:
        """One run with a chart of all loss curves and a table of all instances.

        Args:
            records: `fit.json` objects.
        """
        if records and (run := self._open("summary", "summary")) is not None:
            with self.spared(), self._own_place():
                run.log(charts(records, self.folder.parent))
                run.finish()
        for left in (self.folder / "scratch").glob("*"):  # of processes that were killed
            if left != self._scratch:
                shutil.rmtree(left, ignore_errors=True)


def _drop_dead_service(error: Exception) -> None:
    """Where the process that W&B runs beside this one has died, the next run gets a new one."""
    import wandb
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    if isinstance(error, ConnectionError | HandleAbandonedError | MailboxClosedError):
        wandb.teardown()


def told_of_runs(out: Path) -> str | None:
    """Where W&B's runs of an output folder are looked at; None where there are none."""
    folder = out / "wandb"
    if not any(folder.glob("*run-*")):
        return None
    told = f"curves: wandb leet {shlex.quote(str(folder))}"
    if any(folder.glob("offline-run-*")):
        told += f"; to a server: wandb sync {shlex.quote(str(folder))}/offline-run-*"
    return told
