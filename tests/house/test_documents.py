"""What the documents say is so: names, links and sizes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(
        p
        for room in ("vlmteach", "configs", "benchmarks", "docs")
        for p in (ROOT / room).rglob("*.md")
    ),
]
HISTORY = {"CHANGELOG.md", "LOG.md"}
"""They speak of what was."""


def test_the_readme_is_read_in_one_sitting():
    readme = (ROOT / "README.md").read_bytes()
    assert len(readme.splitlines()) <= 120
    assert len(readme) <= 8192


def test_the_package_s_readme_has_a_line_for_each_file_and_for_no_other():
    package = ROOT / "vlmteach"
    named = re.findall(
        r"^\| `([\w/]+\.py)` \| \S", (package / "README.md").read_text(), re.MULTILINE
    )
    there = [
        path.relative_to(package).as_posix()
        # Links to folders are not followed by rglob.
        for path in [*package.rglob("*.py"), *(package / "callbacks").glob("*.py")]
    ]
    assert sorted(named) == sorted({*there, "configs/__init__.py"})


def test_every_preset_has_its_line():
    page = (ROOT / "configs" / "README.md").read_text()
    presets = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert presets
    assert not [name for name in presets if f"\n| `{name}`" not in page]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    inside = [link.partition("#")[0] for link in links if "://" not in link]
    assert not [link for link in inside if link and not (page.parent / link).exists()]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in HISTORY], ids=lambda p: str(p.relative_to(ROOT))
)
def test_modules_that_a_page_runs_exist(page):
    modules = re.findall(r"-m ((?:vlmteach|benchmarks)[\w.]*\w)", page.read_text())
    files = [ROOT / module.replace(".", "/") for module in modules]
    missing = [
        str(file)
        for file in files
        if not file.with_suffix(".py").is_file() and not (file / "__main__.py").is_file()
    ]
    assert not missing


def test_every_test_that_the_tests_page_names_exists():
    tests = ROOT / "tests"
    page = (tests / "README.md").read_text()
    known = {path.stem for path in tests.rglob("test_*.py")}
    for path in tests.rglob("*.py"):
        known |= set(re.findall(r"def (test_\w+)", path.read_text()))
    named = set(re.findall(r"\b(test_\w+)", page))
    assert len(named) > 200
    # A name may be cut: `test_vbvr_*`, `test_the_experts_...`.
    lost = [name for name in named if not any(each.startswith(name) for each in known)]
    assert not lost


def test_the_citation_names_this_version():
    import yaml

    from vlmteach import __version__

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)


def test_the_dockerfile_copies_what_the_package_needs_and_takes_the_arguments_that_are_told():
    text = (ROOT / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()
    }
    assert not [name for name in copied if not (ROOT / name).exists()]
    assert {"pyproject.toml", "README.md", "LICENSE", "vlmteach", "callbacks", "configs"} <= copied
    told = re.findall(r"--build-arg (\w+)=", (ROOT / "docs" / "cluster.md").read_text())
    assert told
    assert set(told) == set(re.findall(r"^ARG (\w+)=", text, re.MULTILINE))


def test_each_room_of_the_package_has_its_page_in_the_reference():
    rooms = re.findall(r"^## (.+)$", (ROOT / "vlmteach" / "README.md").read_text(), re.MULTILINE)
    pages = "".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.rst")))
    assert sorted(re.findall(r"^\.\. room:: (.+)$", pages, re.MULTILINE)) == sorted(rooms)
