"""Names of families: the table's, a guest's class path, and what is neither."""

import subprocess
import sys
from collections import OrderedDict

import pytest

from vlmteach.config import DecoderConfig, ReasonerConfig, TeacherConfig
from vlmteach.families import REASONERS, family_class


def test_a_class_path_is_a_guest_s_family():
    assert family_class(REASONERS, "collections.OrderedDict") is OrderedDict


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wan3", r"got 'wan3', expected one of wan, .*my_package\.module\.Class"),
        ("no_such_package.Family", r"got no module 'no_such_package', expected package"),
        ("collections.NoSuchFamily", r"got a module without 'NoSuchFamily', expected"),
        ("collections.abc", r"collections\.abc: got <module .*expected a class"),
    ],
)
def test_what_cannot_be_loaded_is_refused(name, expected):
    with pytest.raises(ValueError, match=expected):
        family_class(REASONERS, name)


@pytest.mark.parametrize(
    ("config", "part"),
    [(ReasonerConfig, "reasoner"), (TeacherConfig, "teacher"), (DecoderConfig, "decoder")],
)
def test_the_config_takes_known_names_and_class_paths_only(config, part):
    assert config(family="my_package.module.Class").family == "my_package.module.Class"
    for bad in ("wam", "", "a..B", ".B", "a.b-c"):
        with pytest.raises(ValueError, match=rf"{part}\.family: got '{bad}', expected one of "):
            config(family=bad)


def test_a_teacher_is_loaded_without_any_reasoner():
    probe = (
        "import sys, torch\n"
        "from vlmteach.config import TeacherConfig\n"
        "from vlmteach.teachers.loading import load_teacher\n"
        "load_teacher(TeacherConfig(dtype='float32'), torch.device('cpu'), False)\n"
        "assert not [name for name in sys.modules if name.startswith('vlmteach.reasoners')]\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
