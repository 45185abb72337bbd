"""What README and the documents tell to type is run, page by page, in a folder of its own."""

import pytest

from tests.documents import COMMANDS, PAGES, PYTHON, ROOT, blocks, commands
from vlmteach.builtin.paths import DEMO
from vlmteach.instances import read_samples

KEY, PROMPT = "test/detour/5795967421726", "Move the cyan disc around the wall to the frame."
"""The task that the pages speak of."""
RUN_HERE = [page for page in PAGES if any(block.is_run_here for block in blocks(page))]


@pytest.fixture
def folder(tmp_path):
    """The picture and the table that the pages take for granted, and what is not installed."""
    sample = next(sample for sample in read_samples([str(DEMO)]) if sample.key == KEY)
    assert sample.members["prompt.txt"].decode() == PROMPT
    (tmp_path / "first.png").write_bytes(sample.members["first.png"])
    (tmp_path / "my_tasks.csv").write_text(f"prompt,image\n{PROMPT},first.png\n")
    for name in ("benchmarks", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_pages_have_blocks_to_run():
    assert {page.name for page in RUN_HERE} >= {"README.md", "pictures.md", "tutorial.md"}


@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_s_blocks_do_what_they_say(page, folder, run_in):
    before = set(folder.iterdir())
    for number, block in enumerate(block for block in blocks(page) if block.is_run_here):
        if block.language in PYTHON:
            script = folder / f"block_{number}.py"
            script.write_text(block.code)
            told = [run_in(folder, script.stem, [])]
        else:
            assert block.language in COMMANDS
            told = [run_in(folder, *module_of(words)) for words in commands(block.code)]
        assert not [output for code, output in told if code != 0]
    assert set(folder.iterdir()) > before


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """A command's module and the words after it."""
    if words[0] == "vlmteach":
        return "vlmteach", words[1:]
    assert words[:2] == ["python", "-m"], words
    return words[2], words[3:]


def test_the_example_of_one_task_applies_its_own_adapter(folder, run_in):
    code, output = run_in(folder, "examples.solve_one", ["one"])
    assert code == 0, output
    clips = [(folder / "one" / name / "clip.mp4").read_bytes() for name in ("fit", "half")]
    assert clips[0] != clips[1]


def test_the_example_s_reward_has_its_share_in_the_loss(folder, run_in):
    code, output = run_in(folder, "examples.own_reward", ["reward"])
    assert code == 0, output
    shares = [float(line.split()[-1]) for line in output.splitlines() if "Border" in line]
    assert len(shares) == 9
    assert shares[-1] > 0


def test_the_example_s_sweep_ends_with_a_table(folder, run_in):
    code, output = run_in(folder, "examples.small_sweep", ["small"])
    assert code == 0, output
    for line in ("| base | 3 |", "| five updates | 3 |", "## Minus base, paired"):
        assert line in output
