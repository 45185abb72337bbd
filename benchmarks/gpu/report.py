"""What the sections found: written after each, so that nothing is lost where a later one fails."""

from __future__ import annotations

import datetime
import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


class Skipped(Exception):
    """A section that is left out, and why."""


class Report:
    """The file and the page.

    Args:
        folder: for `gpu.json` and `gpu.md`; made if it is not there.
        device: what is measured.
        minutes: after which no section begins.
        words: of the command line.
    """

    def __init__(
        self, folder: Path, device: torch.device, *, minutes: float, words: Sequence[str]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.device = device
        self._ends = time.monotonic() + 60 * minutes
        self.failed = False
        self.section = ""
        """The one that is run."""
        on_gpu = device.type == "cuda"
        self.content: dict[str, Any] = {
            "command": " ".join(["python -m benchmarks.gpu", *words]),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "sections": {},
        }

    @property
    def seconds_left(self) -> float:
        """Of the budget."""
        return self._ends - time.monotonic()

    def take(self, name: str, run: Callable[[], dict[str, Any]]) -> None:
        """Runs a section and writes what it found, why it was skipped, or its error."""
        start, self.section = time.monotonic(), name
        try:
            if self.seconds_left <= 0:
                raise Skipped("no time is left of --minutes")
            found: dict[str, Any] = {"status": "done", **run()}
        except Skipped as reason:
            found = {"status": "skipped", "why": str(reason)}
        except torch.OutOfMemoryError as error:
            found = {"status": "skipped", "why": f"out of memory: {str(error).splitlines()[0]}"}
        except Exception as error:  # whatever it is, the other sections go on
            self.failed = True
            said = traceback.format_exc().splitlines()[-12:]
            found = {"status": "failed", "why": f"{type(error).__name__}: {error}", "trace": said}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        found["took_s"] = round(time.monotonic() - start, 2)
        self.content["sections"][name] = found
        print(f"{name}: {found['status']} {found.get('why', '')} ({found['took_s']} s)", flush=True)
        text = json.dumps(self.content, indent=1) + "\n"
        (self.folder / "gpu.json").write_text(text, encoding="utf-8")
        (self.folder / "gpu.md").write_text(page(self.content), encoding="utf-8")


def page(content: dict[str, Any]) -> str:
    """The findings as Markdown."""
    facts = "; ".join(f"{name} {content[name]}" for name in ("device", "torch", "cuda", "date"))
    parts = [f"# {content['device']}", f"`{content['command']}`", facts]
    for name, found in content["sections"].items():
        lines = [f"## {name}", "", f"{found['status']}, {found['took_s']} s"]
        if "why" in found:
            lines += ["", f"    {found['why']}"]
        rows = {k: v for k, v in found.items() if k not in ("status", "took_s", "why", "trace")}
        if rows:
            lines += ["", "| | |", "|---|---:|"]
            lines += [
                f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in rows.items()
            ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
