"""The code blocks of the pages, and what a comment above each says of how it is held to be true.

    <!-- tests/plugins/toy_method.py -->             Python: the file is this block
    <!-- run by tests/integration/test_demo.py -->   that file runs it
    <!-- not run: real weights -->                   for one of REASONS; it is parsed all the same
    <!-- file: fit.sbatch -->                        the page's commands find it under this name

A block of commands or Python without one is run by `tests/integration/test_pages.py`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
REASONS = {"real weights", "a fit of yours", "minutes", "hours", "docker"}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "configs/README.md")),
    *(ROOT / name for name in ("vlmteach/RUNNING.md", "vlmteach/mini/README.md")),
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMANDS, PYTHON = ("sh", "bash"), ("python",)
_BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^```([^\n`]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ENDS = {"&&", "||", ";", "|"}


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    language: str
    code: str
    mark: str

    @property
    def is_run_here(self) -> bool:
        """Whether nothing but its page's run holds it."""
        return self.language in (*COMMANDS, *PYTHON) and not self.mark

    @property
    def file(self) -> str | None:
        """The name under which the page's commands find it."""
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    name = page.relative_to(ROOT).as_posix()
    return [Block(name, lang, code, mark) for mark, lang, code in _BLOCK.findall(page.read_text())]


def commands(code: str) -> list[list[str]]:
    """The words of each command of a block, `&&` and its like read as the end of one."""
    found: list[list[str]] = []
    for line in code.replace("\\\n", " ").splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        reader.whitespace_split = True
        words = list(reader)
        while words:
            end = next((n for n, word in enumerate(words) if word in _ENDS), len(words))
            found.append(words[:end])
            words = words[end + 1 :]
    return [words for words in found if words]
