"""The recipes of CONTRIBUTING.md: as short as they promise, and their code is code that runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
LIMITS = {
    "A method": (2, 1),
    "A reasoner family": (6, 4),
    "A teacher family": (6, 4),
    "A reward": (2, 1),
    "A callback": (1, 1),
    "A benchmark": (2, 1),
}
"""Recipe -> files opened at most, those touched included; files touched at most."""
EXAMPLES = {"A reasoner family": "hunyuan15", "A teacher family": "internvl"}
"""A family of the package, whose files show that the recipe's paths are the real ones."""


def recipes() -> dict[str, str]:
    """Heading -> what follows it, of every heading that lists files."""
    parts = re.split(r"^#{3,4} (.+)$", TEXT, flags=re.MULTILINE)
    return {
        name: body
        for name, body in zip(parts[1::2], parts[2::2], strict=True)
        if re.search(r"^- touch `", body, re.MULTILINE)
    }


def files(recipe: str, verb: str) -> list[Path]:
    name = EXAMPLES.get(recipe, "<name>")
    listed = re.findall(rf"^- {verb} `(.+)`$", recipes()[recipe], re.MULTILINE)
    return [ROOT / path.replace("<name>", name) for path in listed]


def blocks() -> dict[str, str]:
    """File -> the code block that the file's name, in an HTML comment, stands above."""
    return dict(
        re.findall(r"^<!-- (\S+\.py) -->\n```python\n(.*?)```$", TEXT, re.DOTALL | re.MULTILINE)
    )


def test_all_recipes_are_there():
    assert set(recipes()) == set(LIMITS)


@pytest.mark.parametrize("recipe", LIMITS)
def test_a_recipe_opens_and_touches_few_files_and_they_exist(recipe):
    touched, tests = files(recipe, "touch"), files(recipe, "test")
    opened = files(recipe, "open") + touched
    most_opened, most_touched = LIMITS[recipe]
    assert len(opened) <= most_opened
    assert 1 <= len(touched) <= most_touched
    assert tests
    assert not [str(path) for path in opened + tests if not path.is_file()]


def test_every_python_block_has_a_file():
    assert len(blocks()) == TEXT.count("```python")
    assert len(blocks()) >= 4


@pytest.mark.parametrize("file", blocks())
def test_a_block_is_the_file_it_names(file):
    compile(blocks()[file], file, "exec")
    assert (ROOT / file).read_text() == blocks()[file]


@pytest.mark.parametrize("recipe", LIMITS)
def test_what_a_recipe_s_reader_writes_is_run_by_its_test(recipe):
    tests = "".join(path.read_text() for path in files(recipe, "test"))
    for path in files(recipe, "touch"):
        if "plugins" in path.parts:
            assert f"plugins.{path.stem}" in tests
