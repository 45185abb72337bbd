"""What a stranger's rows and names may say, and judges that are kin to the teacher."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.judges.family import refuse_kin_by_name
from benchmarks.ruler.__main__ import main
from benchmarks.ruler.items import check_model
from vlmteach.instances import InstanceError, pack
from vlmteach.instances.ruler import Checklist, read_checklist
from vlmteach.instances.write import NewSample, write_tar

ROOT = Path(__file__).parent.parent.parent
META = {
    "task_name": "physics",
    "index": 3,
    "category": "science",
    "checklist": [{"Rule Coherence": "Down?"}],
    "implicit_explanation": None,
}


def test_a_checklist_is_read():
    assert read_checklist(META, "k") == Checklist(
        "physics", "3", "science", (("Rule Coherence", "Down?"),), ""
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("task_name", v) for v in ("..", "../x", "/etc", "a/b", "", ".a", "a\n", "a\0", 1.5)],
        *[("index", v) for v in ("../../0", "0/..", None, True, "", -1, "x" * 90, "0.", "é")],
        ("category", "sports"),
        ("category", ["science"]),
        *[
            ("checklist", v)
            for v in (
                None,
                [],
                "Down?",
                [{}],
                [{"Rule Coherence": "a", "Instruction Following": "b"}],
                ["a"],
            )
        ],
        *[
            ("checklist", v)
            for v in (
                [{"Rule Coherence": ""}],
                [{"Rule Coherence": 1}],
                [{"Beauty": "a"}],
                [{"Rule Coherence": "\ud800"}],
            )
        ],
        ("checklist", [{"Rule Coherence": "a"}] * 101),
        ("implicit_explanation", 3),
    ],
)
def test_a_hostile_row_is_refused_by_field(field, value):
    with pytest.raises(InstanceError, match=f"sample k: {field}"):
        read_checklist({**META, field: value}, "k")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", "a\\b", ".a", "a.", "a b", "a.json"])
def test_a_models_name_is_a_folders(name):
    with pytest.raises(ValueError, match="names a folder"):
        check_model(name)


def test_kin_are_told_by_name():
    for model, teacher in (
        ("Qwen/Qwen2.5-VL-72B-Instruct", "qwen3_vl"),
        ("qwen-vl-max", "qwen2_5_vl"),
        ("OpenGVLab/InternVL3-8B", "qwen3_vl"),
        ("qwen3-vl", "internvl"),
    ):
        with pytest.raises(ValueError, match="another family"):
            refuse_kin_by_name(model, model, teacher)
    refuse_kin_by_name("o3", "o3", "qwen3_vl")
    refuse_kin_by_name("google/gemma-3-27b-it", "google/gemma-3-27b-it", "internvl")


def test_a_row_that_could_not_be_judged_is_refused_and_hurts_no_other(tmp_path):
    rows = [
        {**META, "prompt": "p"},
        {**META, "prompt": "p", "index": 4, "category": "sports"},
        {**META, "prompt": "p", "index": 5, "checklist": '[{"Beauty": "Is it?"}]'},
        {**META, "prompt": "p", "index": "../6"},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    packed = pack(tmp_path, tmp_path / "out.tar")
    assert packed.keys == ("physics/3",)
    assert [error.field for error in packed.refused] == ["category", "checklist", "index"]


def test_a_strangers_names_lead_nowhere(tmp_path, capsys):
    """A tar need not come from our importer, which refuses such a row itself."""
    for field, value in (("task_name", "../../up"), ("index", "/tmp/x"), ("task_name", "a/../..")):
        meta = json.dumps({**META, field: value}).encode()
        sample = NewSample("k", "s", {"prompt.txt": b"p", "meta.json": meta})
        tar = tmp_path / "hostile.tar"
        write_tar([sample], tar)
        for command in (
            ["export", "--out", str(tmp_path / "out"), f"m={tmp_path}"],
            ["report", "--videos", str(tmp_path), "--rows", "r", "--out", str(tmp_path / "out")],
        ):
            (tmp_path / "config.yaml").write_text("{run: {}, teacher: {family: qwen3_vl}}")
            (tmp_path / "m.json").write_text('{"teacher": "q", "videos": []}')
            assert main([*command, "--instances", str(tar)]) == 2
            assert f"sample k: {field}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_imports_nothing_heavy():
    probe = (
        "import runpy, sys\n"
        "sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('benchmarks.ruler', run_name='__main__')\n"
        "except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'av', 'yaml', 'torchmetrics'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
