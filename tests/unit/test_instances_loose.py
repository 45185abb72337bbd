"""Instances that lie in no tar: words, folders of pictures, lines."""

import pytest
from PIL import Image

from vlmteach.instances.loose import KEY, Loose, loose_of


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "b.JPG"):
        Image.new("RGB", (4, 4), "red").save(folder / name)
    (folder / "a.txt").write_text("Move a.\n")
    (folder / "b.prompt.txt").write_bytes("﻿Move b.".encode())
    (folder / "notes.txt").write_text("not a task")
    (folder / ".hidden.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return folder


def found(*words, key=None, lines=()):
    return loose_of(list(words), key=key, lines=lines)[0]


def test_words_are_a_prompt_or_a_picture_with_one(pictures):
    picture = pictures / "a.png"
    assert found("go") == [Loose(KEY, "go", None)]
    assert found(str(picture), "go", key="k") == [Loose("k", "go", picture)]
    assert found(str(picture)) == [Loose(KEY, "Move a.", picture)]


def test_a_folder_is_its_pictures_with_the_texts_beside_them(pictures):
    loose, left_out = loose_of([str(pictures)], key=None, lines=())
    assert [(each.key, each.prompt) for each in loose] == [("a", "Move a."), ("b", "Move b.")]
    assert left_out == ["notes.txt"]
    instance = loose[1].instance("Is it there?", ["Is it whole?"])
    assert instance.first_frame is not None
    assert (instance.first_frame.size, len(instance.queries)) == ((4, 4), 2)


def test_lines_have_the_same_keys_in_any_order(pictures):
    lines = ["pictures/a.png\tMove it.\n", "\n", "Draw a dog.\r\n"]
    loose = found("-", lines=lines)
    assert [(each.prompt, each.image and each.image.name) for each in loose] == [
        ("Move it.", "a.png"),
        ("Draw a dog.", None),
    ]
    assert [each.key.partition("-")[0] for each in loose] == ["a", "text"]
    assert {e.key for e in found("-", lines=lines[::-1])} == {e.key for e in loose}


@pytest.mark.parametrize(
    ("words", "lines", "told"),
    [
        (["none.png", "go"], (), "got 'none.png', expected a file that exists"),
        (["move", "the", "ball"], (), "got 3 words, expected IMAGE PROMPT"),
        (["."], (), "got no picture"),
        (["-"], ["\n"], "got no line"),
        (["-"], ["a\t\n"], "line 1: got no prompt"),
        (["-"], ["go", "none.png\tgo"], "line 2: got 'none.png', expected a file"),
        (["-"], ["go", "go"], "line 2: got the picture's name and prompt of line 1 again"),
    ],
)
def test_what_stands_for_nothing_is_refused(pictures, words, lines, told):
    with pytest.raises(ValueError, match=told):
        loose_of(words, key=None, lines=lines)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda folder: (folder / "a.txt").unlink(), "a.png: got no a.txt beside it"),
        (lambda folder: (folder / "a.txt").write_bytes(b"\xff"), "a.txt: got .*expected UTF-8"),
        (lambda folder: (folder / "a.jpg").write_bytes(b""), "got the key 'a' again"),
        (lambda folder: (folder / "c.png").symlink_to("/etc/hostname"), "a link out of the folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(pictures, change, told):
    change(pictures)
    with pytest.raises(ValueError, match=told):
        found(str(pictures))


def test_several_take_no_key(pictures):
    with pytest.raises(ValueError, match="--key: got 'k' for several"):
        found(str(pictures), key="k")
