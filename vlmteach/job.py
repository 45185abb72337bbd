"""What one command was asked to do, and whether a folder is for results of the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vlmteach.builtin.paths import resolve
from vlmteach.config import Config
from vlmteach.families import FULL
from vlmteach.instances import list_samples
from vlmteach.instances.read import Listing
from vlmteach.ledger import DONE, Claim, Ledger
from vlmteach.presets import read_preset
from vlmteach.queries import queries_for
from vlmteach.record import read_json, write_json, write_text
from vlmteach.types import Query

UNBOUND = (
    "wandb",
    "logger",
    "run.max_deaths",
    "run.instances_at_once",
    "reasoner.licence",
    "fit.checkpointing",
)
"""Config entries that may change between a run and its resumption: no result depends on them."""
CONFIG = "config.yaml"
INPUTS = ".inputs.json"
"""Beside it: digests of the files that the config and the command only name."""

_BINDER = "\0binder"
"""Key in the ledger, no instance's, of the process that bound a folder, for as long as it lives."""
_LOOKS = 50
"""A tenth of a second apart, while another process is about to bind."""

_READ = {".safetensors", ".json", ".jinja", ".txt", ".model", ".bin", ".pt", ".pth"}
_BLOCK = 2**20
_BLOCKS = 64


@dataclass(frozen=True)
class Job:
    """What one command was asked to do."""

    config: Config
    sources: tuple[str, ...]
    out: Path
    queries: Path | None = None

    @cached_property
    def samples(self) -> Listing:
        """Keys of all instances, and what became of the sources' members; headers are read once.

        Raises:
            ValueError: a source that does not exist or cannot be one.
        """
        return list_samples(self.sources)

    @cached_property
    def given(self) -> dict[str, tuple[Query, ...]]:
        """The queries in the file, by key.

        Raises:
            ValueError: a file that cannot be read, or that is for other instances.
        """
        return queries_for(self.queries, self.samples.keys) if self.queries else {}

    @cached_property
    def binding(self) -> Binding:
        """What the folder's results must be of.

        Raises:
            OSError: a checkpoint that cannot be read.
        """
        return Binding(self, self.given)

    def check(self) -> None:
        """Refuses what can be refused before models, and what they need, are imported.

        Raises:
            ValueError: sources, queries or a folder that cannot be these.
            OSError: a checkpoint that cannot be read.
        """
        check_folder(self.out)
        _ = self.samples
        self.binding.check()

    def digest(self) -> str:
        """Of the config, without what no result depends on: 16 hexadecimal digits of sha256."""
        flat = _bound(_plain(self.config))
        bound = {name: flat[name] for name in sorted(flat)}
        return hashlib.sha256(json.dumps(bound).encode()).hexdigest()[:16]


def check_folder(out: Path) -> None:
    """Refuses a path at which no folder can be made.

    Raises:
        ValueError: it, or what it lies in, is a file.
    """
    for path in (out, *out.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--out {out}: got {path}, a file, expected a folder; name another")


def _bound(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config's entries by dotted name, those left out that may change."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _bound(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return {name: item for name, item in flat.items() if not name.startswith(UNBOUND)}


def _plain(config: Config) -> dict[str, Any]:
    """A config as `config.yaml` gives it back: tuples are lists there."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def changes(config: Config, out: Path) -> list[tuple[str, Any, Any]]:
    """(field, ours, theirs) of every entry in which a config differs from that of the results in
    a folder; none where the folder has no results.

    Raises:
        ValueError: a `config.yaml` that cannot be read.
    """
    if not (out / CONFIG).exists() or not has_results(out):
        return []
    return _changes(_bound(_plain(config)), _bound(read_preset(out / CONFIG)))


def has_results(out: Path) -> bool:
    """Whether a folder holds an instance that is done."""
    return any(out.glob(f"*/{DONE}"))


def _changes(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (name, ours.get(name), theirs.get(name))
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def inputs_of(job: Job, queries: Mapping[str, Sequence[Query]]) -> dict[str, str]:
    """Digests of what results depend on and the config only names, by option.

    Args:
        job: its checkpoints, and the file of a distillation LoRA. One on the hub is not read: its
            name is its content's for as long as nobody moves the branch.
        queries: as read from `--queries`.

    Raises:
        OSError: a file that cannot be read.
    """
    reasoner, decoder, teacher = job.config.reasoner, job.config.decoder, job.config.teacher
    named = {
        "--reasoner.checkpoint": reasoner.checkpoint,
        "--reasoner.distillation_lora": reasoner.distillation_lora,
        "--decoder.checkpoint": None if decoder.family == FULL else decoder.checkpoint,
        "--teacher.checkpoint": teacher.checkpoint,
    }
    found = {}
    for name, given in named.items():
        try:
            path = Path(resolve(given or ""))
        except ValueError:
            continue  # not there: whoever loads it says so
        if given and (path.is_file() or path.is_dir()):
            found[name] = digest_of_files(path)
    if queries:
        told = {key: list(map(dataclasses.astuple, queries[key])) for key in sorted(queries)}
        found["--queries"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return found


def digest_of_files(path: Path) -> str:
    """sha256 of a checkpoint's names, sizes and bytes.

    Files of more than 64 MiB are read at 64 places spread over them, 1 MiB each: training, fusing
    and casting change all of a file, and reading 30 GB at each start would cost minutes.

    Args:
        path: a file, or a folder whose files lie in it or one folder below.
    """
    files: Iterable[Path] = [path]
    if path.is_dir():
        below = (*path.glob("*"), *path.glob("*/*"))
        files = sorted(f for f in below if f.suffix in _READ and f.is_file())
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)} {size}\n".encode("utf-8", "surrogateescape"))
        whole = size <= _BLOCKS * _BLOCK
        starts = range(0, size, _BLOCK) if whole else _spread(size)
        with file.open("rb") as opened:
            for start in starts:
                opened.seek(start)
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()


def _spread(size: int) -> list[int]:
    return [place * (size - _BLOCK) // (_BLOCKS - 1) for place in range(_BLOCKS)]


class Binding:
    """What makes the results of one folder comparable: one config, the same inputs.

    Args:
        job: what is asked for.
        queries: as read from `--queries`.

    Raises:
        OSError: a checkpoint that cannot be read.
    """

    def __init__(self, job: Job, queries: Mapping[str, Sequence[Query]]) -> None:
        self.out = job.out
        self.config = _plain(job.config)
        self.inputs = inputs_of(job, queries)
        self._claim: Claim | None = None
        self._seen: tuple[int, ...] | None = None

    def check(self) -> None:
        """Refuses a folder with results of another config or other inputs; writes nothing.

        Raises:
            ValueError: when results would mix in one folder.
        """
        if has_results(self.out):
            self.confirm()

    def bind(self, ledger: Ledger, keys: Sequence[str]) -> None:
        """Makes the folder this job's, unless it holds or will hold another's results.

        Args:
            ledger: of the folder.
            keys: of the job's instances.

        Raises:
            ValueError: when results would mix in one folder.
            OSError: where nothing can be written.
        """
        for _ in range(_LOOKS):
            exists = (self.out / CONFIG).exists()
            if exists and not self._changed():
                return
            if self._is_used(ledger, keys):
                self.confirm()
            self._claim = ledger.claim(_BINDER)
            if self._claim is not None:
                break
            if exists:  # who bound it is still loading models
                self.confirm()
            time.sleep(0.1)  # who binds it is about to write the file
        write_json(self.out / INPUTS, self.inputs)
        write_text(self.out / CONFIG, yaml.safe_dump(self.config, sort_keys=False))

    def confirm(self) -> None:
        """Called before each claim of an instance.

        Raises:
            ValueError: the folder is no longer this job's.
        """
        try:
            stat = (self.out / CONFIG).stat()
            seen = stat.st_ino, stat.st_mtime_ns
        except OSError:
            seen = None
        if seen is not None and seen == self._seen:
            return
        if changed := self._changed():
            raise self._refusal(changed)
        self._seen = seen

    def release(self, ledger: Ledger) -> None:
        """Lets go of the folder: what is in it, and who works in it, bind it from here on."""
        if self._claim is not None:
            ledger.release(self._claim)
            self._claim = None

    def _is_used(self, ledger: Ledger, keys: Sequence[str]) -> bool:
        """Whether the folder has results, or somebody works on one."""
        free = {*ledger.pending(keys), *ledger.poisoned(keys)}
        return has_results(self.out) or any(k not in free and not ledger.is_done(k) for k in keys)

    def _changed(self) -> list[tuple[str, Any, Any]]:
        """(name, ours, theirs) of all in which the folder's config and inputs differ."""
        try:
            config, inputs = read_preset(self.out / CONFIG), self._their_inputs()
            if not config:
                raise ValueError(f"{self.out / CONFIG}: got no fields")
        except (OSError, ValueError) as error:
            return [(CONFIG, " ".join(str(error).split()), None)]
        known = self.inputs.keys() & inputs.keys() | {"--queries"} & {*self.inputs, *inputs}
        return _changes(_bound(self.config), _bound(config)) + [
            (name, self.inputs.get(name), inputs.get(name))
            for name in sorted(known)
            if self.inputs.get(name) != inputs.get(name)
        ]

    def _their_inputs(self) -> dict[str, Any]:
        if not (self.out / INPUTS).exists():
            return dict(self.inputs)  # of an earlier version, which did not look
        inputs = read_json(self.out / INPUTS)
        if not isinstance(inputs, dict):
            raise ValueError(f"{self.out / INPUTS}: got {type(inputs).__name__}")
        return inputs

    def _refusal(self, changed: list[tuple[str, Any, Any]]) -> ValueError:
        name, ours, theirs = changed[0]
        more = f" and {len(changed) - 1} more changes" if changed[1:] else ""
        if name == CONFIG:
            told = f"results, and of what they were made: {ours}, expected the file as it was"
            remedy = "put it back"
        elif name.startswith("--"):
            told = f"{name} with another content{more}, expected that of the results begun there"
            remedy = "put it back"
        else:
            told = f"{name} = {ours!r}{more}, expected {theirs!r} as in its config.yaml"
            remedy = "resume with that config"
        return ValueError(f"--out {self.out}: got {told}; {remedy}, or name another folder")
