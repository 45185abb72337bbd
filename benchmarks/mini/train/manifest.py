"""`manifest.json` of a recipe's folder: what each stage left there, out of what, and what it took.

    {"seed": <seed>, "stages": {"autoencoder": {"done": true, "steps": <n>, "seconds": <s>,
        "threads": 1, "arithmetic": "bfloat16", "torch": "<version>", "from": {},
        "files": {"<path>": "<sha256>", ...}}}}

`steps` are those made, `seconds` the wall time of all pieces that ended by themselves. `from` are
the checksums of the files that the stage was built on, as they were when it ended. A folder whose
files are no longer what their last stage left, or of which one stage was built on files of another
making, is told before anything is trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmteach import rows
from vlmteach.record import read_json, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Made:
    """What a stage leaves, and what it is built on."""

    outputs: tuple[str, ...]
    """Files and folders, from the recipe's; those that a later stage names too, it writes again."""
    needs: tuple[str, ...] = ()
    """Stages."""


STAGES = {
    "autoencoder": Made(("vae",)),
    "surrogate": Made(("taehv.safetensors",), ("autoencoder",)),
    "reasoner": Made(("able",), ("autoencoder",)),
    "flaws": Made(("flawed",), ("autoencoder", "reasoner")),
    "details": Made(("wan",), ("autoencoder", "flaws")),
    "teacher": Made(("teacher",), ("autoencoder", "surrogate", "details")),
    "hardening": Made(("teacher",), ("autoencoder", "surrogate", "details", "teacher")),
    "tempering": Made(("teacher",), ("autoencoder", "surrogate", "details", "hardening")),
    "slopes": Made(("teacher",), ("autoencoder", "surrogate", "details", "tempering")),
    "speaker": Made(("speaker",), ("autoencoder", "slopes")),
    "judge": Made(("judge", "judge-at"), ("autoencoder", "surrogate", "details", "slopes")),
    "classifier": Made(("classifier.safetensors",), ("autoencoder", "slopes")),
}
"""In the order in which they build on each other."""


class Manifest:
    """The manifest of a folder, read and checked.

    Args:
        out: the recipe's folder; need not exist.
        seed: of the recipe.

    Raises:
        ValueError: a manifest of another seed, or a folder that is not what it says.
    """

    def __init__(self, out: Path, seed: int) -> None:
        self.path = out / MANIFEST
        self.seed = seed
        self.stages = self._read()
        self.check()

    def _read(self) -> dict[str, dict[str, Any]]:
        """Stage -> what is told of it."""
        told = read_json(self.path) if self.path.exists() else {"seed": self.seed, "stages": {}}
        stages = told.get("stages") if isinstance(told, dict) else None
        if not isinstance(stages, dict) or stages.keys() - STAGES.keys():
            raise ValueError(
                f"{self.path}: got {str(told)[:80]!r}, expected a seed and stages of the recipe; "
                "move it away"
            )
        if told.get("seed") != self.seed:
            raise ValueError(
                f"--seed: got {self.seed}, expected {told.get('seed')} as in {self.path}, since a "
                "recipe is of one seed; take another --out"
            )
        return stages

    def done(self, stage: str) -> bool:
        """Whether a stage has all its steps."""
        return bool(self.stages.get(stage, {}).get("done"))

    def check(self) -> None:
        """Compares the folder's files with what their last stages left, and these with each other.

        Raises:
            ValueError: names the first file that differs.
        """
        last: dict[str, str] = {}
        for name in STAGES:
            if self.done(name):
                last |= dict.fromkeys(self.stages[name]["files"], name)
            elif name in self.stages:  # under way, and may have begun to write them again
                again = STAGES[name].outputs
                last = {f: s for f, s in last.items() if Path(f).parts[0] not in again}
        for file, stage in last.items():
            expected, got = self.stages[stage]["files"][file], digest_of(self.path.parent / file)
            if got != expected:
                raise ValueError(
                    f"{self.path.parent / file}: got {got}, expected {expected} as the stage "
                    f"{stage} left it; put it back, or begin in another --out"
                )
        for name in filter(self.done, STAGES):
            built_on = self.stages[name]["from"]
            for file, digest in self._below(name).items():
                if built_on.get(file) != digest:
                    raise ValueError(
                        f"{self.path}: {name}: got a stage built on {file} {built_on.get(file)}, "
                        f"expected {digest}, as it is now; begin in another --out"
                    )

    def _below(self, stage: str) -> dict[str, str]:
        """File -> checksum of what the stages before one left; of one written twice, the later."""
        found: dict[str, str] = {}
        for need in filter(self.done, STAGES[stage].needs):
            found |= self.stages[need]["files"]
        return found

    @contextmanager
    def piece(self, stage: str, threads: int) -> Iterator[None]:
        """Around one piece of a stage's training, however it ends: adds its time and, where the
        stage is then done, what it left."""
        self._note(stage, 0.0, threads)  # else a piece that is killed would look like tampering
        began = time.monotonic()
        try:
            yield
        finally:
            self._note(stage, time.monotonic() - began, threads)

    def _note(self, stage: str, seconds: float, threads: int) -> None:
        import torch

        from benchmarks.mini.train.arithmetic import arithmetic

        out = self.path.parent
        self.stages = self._read()  # stages may be trained side by side, each in its process
        state = Path("state") / f"{stage}.safetensors"
        made, steps = progress(out / state)
        before = self.stages.get(stage, {}).get("seconds", 0.0)
        done = 0 < steps <= made
        self.stages[stage] = {
            "done": done,
            "steps": made,
            "seconds": round(before + seconds, 3),
            "threads": threads,
            "arithmetic": str(arithmetic()).removeprefix("torch."),
            "torch": torch.__version__,
            "from": self._below(stage) if done else {},
            "files": {
                str(file.relative_to(out)): digest_of(file)
                for root in (str(state), *STAGES[stage].outputs)
                for file in files_of(out / root)
            }
            if done
            else {},
        }
        out.mkdir(parents=True, exist_ok=True)
        write_json(self.path, {"seed": self.seed, "stages": self.stages})


def progress(state: Path) -> tuple[int, int]:
    """Steps made and steps in all of a stage's state; (0, 0) where there is none."""
    from safetensors import safe_open

    if not state.is_file():
        return 0, 0
    with safe_open(state, "pt") as file:
        return int(file.get_tensor("done")), int(file.get_tensor("steps"))


def files_of(root: Path) -> list[Path]:
    """A file, or all files below a folder, in the order of their names."""
    return sorted(path for path in (root, *root.rglob("*")) if path.is_file())


def digest_of(file: Path) -> str:
    """Its sha256; "no file" where it is missing."""
    return rows.digest_of(file) if file.is_file() else "no file"
