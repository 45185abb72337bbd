"""The documents are built as they are published: warnings are errors, the tutorial is executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_pages_build_without_a_warning_and_the_tutorial_runs(tmp_path):
    site = tmp_path / "site"
    # Not in docs/: that folder may be somebody's checkout, and others build at the same time.
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*command, ROOT / "docs", site],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tutorial = (site / "tutorial.html").read_text()
    assert tutorial.count("<video") >= 2
    assert "solved: True" in tutorial
    assert "<math" in (site / "method.html").read_text()
    index = (site / "genindex.html").read_text()
    for name in ("solve", "Reward", "rollout", "ChatTeacher", "StopAtLoss"):
        assert re.search(rf"\b{name}\b", index), name
    for page in site.rglob("*.html"):  # nothing is loaded from elsewhere
        text = page.read_text()
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text), page
