"""Classes by path: found, checked before anything is made, made."""

import sys

import pytest
import torch

from vlmteach.class_path import load_class
from vlmteach.classes import check, check_classes, make, maker
from vlmteach.config import ClassConfig, Config, RewardConfig

MODULE = """
class Clip:
    def __init__(self, strength: float, name: str = "x", tags: tuple[str, ...] = ()):
        self.told = (strength, name, tags)

class Free:
    def __init__(self, **anything):
        self.told = anything

class Outer:
    def __init__(self, inner: Clip):
        self.inner = inner

def clip(strength: float = 1.0):
    return Clip(strength)

number = 3
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_classes.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("1 / 0")
    (tmp_path / "my_needy.py").write_text("import no_such_module_of_mine")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("my_classes", "my_broken", "my_needy"):
        sys.modules.pop(name, None)


def spec(path, **init_args):
    return ClassConfig(class_path=path, init_args=init_args)


def test_arguments_get_the_types_of_the_class():
    made = make(spec("my_classes.Clip", strength="2", tags=["a", "b"]))
    assert made.told == (2.0, "x", ("a", "b"))


def test_only_what_is_given_is_passed_on():
    adamw = maker(spec("torch.optim.AdamW", betas=[0.5, 0.9]), positional=1, given=("lr",))
    made = adamw([torch.zeros(1)], lr=0.1)
    plain = torch.optim.AdamW([torch.zeros(1)], lr=0.1, betas=(0.5, 0.9))
    assert made.defaults == plain.defaults


def test_a_function_will_do_and_so_will_any_name_where_a_class_takes_any():
    assert make(spec("my_classes.clip", strength=3)).told[0] == 3.0
    free = maker(spec("my_classes.Free", a=1, b=[2]), given=("c",))
    assert free(c=3).told == {"a": 1, "b": [2], "c": 3}


def test_an_argument_may_be_a_class_itself():
    inner = {"class_path": "my_classes.Clip", "init_args": {"strength": 2}}
    check(spec("my_classes.Outer", inner=inner))
    make = maker(spec("my_classes.Outer", inner=inner))
    one, other = make(), make()
    assert one.inner.told == (2.0, "x", ())
    assert one.inner is not other.inner, "made anew with each object"


def test_a_class_is_read_once_however_many_objects_are_made(monkeypatch):
    make = maker(spec("my_classes.Clip", strength="2"))
    monkeypatch.setattr("jsonargparse.ArgumentParser", None)
    assert make().told == make().told == (2.0, "x", ())


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (spec("no_such_module_of_mine.A"), "got no module 'no_such_module_of_mine'"),
        (spec("my_needy.A"), "got no module 'no_such_module_of_mine'"),
        (spec("my_broken.A"), "got ZeroDivisionError"),
        (spec("my_classes.Clop"), "it has Clip, Free, Outer"),
        (spec("my_classes.number"), "got 3, expected a class"),
        (spec("my_classes.Clip"), "got no 'strength'"),
        (spec("my_classes.Clip", strength=1, size=2), "expected one of strength, name, tags"),
        (spec("my_classes.Clip", strength="much"), "Got value: much"),
        (spec("my_classes.Outer", inner={"class_path": "my_classes.Nothing"}), "my_classes.Outer"),
    ],
)
def test_what_does_not_fit_is_refused(made, told):
    with pytest.raises(ValueError, match=r"expected|Expected|correct") as refusal:
        check(made)
    assert told in str(refusal.value)
    with pytest.raises(ValueError, match=r"expected|Expected|correct"):
        make(made)


def test_the_learning_rate_has_one_place():
    with pytest.raises(ValueError, match=r"set fit\.learning_rate"):
        check(spec("torch.optim.SGD", lr=0.1), positional=1, given=("lr",))


def test_a_class_must_take_what_it_is_made_with():
    with pytest.raises(ValueError, match="does not take 'lr'"):
        check(spec("my_classes.Clip", name="y"), positional=1, given=("lr",))


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "my_classes.Nothing"},
        {"optimizer": spec("torch.optim.SGD", momentun=0.9)},
        {"scheduler": spec("torch.optim.lr_scheduler.StepLR")},
        {"reward": (RewardConfig(class_path="my_classes.Clip"),)},
        {"callbacks": (spec("my_classes.Clip", strength=1), spec("my_classes.Nothing"))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_class_of_a_config_is_checked(changed):
    check_classes(Config())
    with pytest.raises(ValueError, match="got"):
        check_classes(Config(**changed))


def test_a_class_is_found():
    assert load_class("torch.optim.SGD") is torch.optim.SGD


def test_an_optimiser_with_several_losses_an_update_is_refused():
    for name, refused in (("LBFGS", True), ("AdamW", False), ("SGD", False), ("Muon", False)):
        config = Config(optimizer=ClassConfig(class_path=f"torch.optim.{name}"))
        if refused:
            with pytest.raises(ValueError, match="LBFGS, which evaluates the loss several times"):
                check_classes(config)
        else:
            check_classes(config)
