"""No sample with an image passes for text-to-video: the image is taken, or named in a refusal."""

import os

import pytest

from tests.unit.test_instances_tar import END, PNG, member, planted, problems
from vlmteach.instances import list_samples, pack
from vlmteach.instances.__main__ import main


def loose(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"Go." if name.lower().endswith(".txt") else PNG)
    return str(folder)


@pytest.mark.parametrize(
    "names",
    [
        ["a.prompt.txt", "a.png"],
        ["a.prompt.txt", "a.JPG"],
        ["a.jpeg", "a.prompt.txt"],
        ["a.prompt.txt", "a.webp"],
        ["a.prompt.txt", "a.First.PNG"],
        ["level_1.5.prompt.txt", "level_1.5.first.png"],
        ["d.e/level_1.5.prompt.txt", "d.e/level_1.5.first.png", "d.e/level_1.5.json"],
    ],
)
def test_an_image_that_is_plainly_meant_is_taken(tmp_path, names):
    names = [n for n in names if not n.endswith("json")]
    (found,) = problems(loose(tmp_path / "in", names)).items()
    assert found == (names[0].lower().partition(".prompt")[0].removesuffix(".jpeg"), "")
    blocks = b"".join(member(f"./{n}", b"Go." if n.endswith("txt") else PNG) for n in names)
    assert dict([found]) == problems(planted(tmp_path, blocks + END))


@pytest.mark.parametrize(
    "image",
    [
        *(f"a.{e}" for e in ("heic", "avif", "gif", "tif", "tiff", "bmp", "jpe", "jxl", "jfif")),
        *("a.first.gif", "a.first_frame.png", "a.image.png", "a.input.jpg", "a.First.HEIC"),
        *("a_first.png", "a-1.png", "a first.png", "a/first_frame.png", "a/image.png", "A.png"),
        *("first_frame.png", "image.png", "First Frame.JPG", "input.webp", "frame_0001.png"),
        *("A.first.png", "images/a.png", "images/a.first.png", "a.final.jpg", "a.png.png"),
    ],
)
def test_an_image_that_was_not_taken_is_named(tmp_path, image):
    source = loose(tmp_path, ["a.prompt.txt", image, "b.prompt.txt", "b.first.png", "bad.txt"])
    found = problems(source)
    assert found["b"] == ""
    assert f"sample a: first.png: got none, and '{image}' beside it" in found["a"]


def test_text_to_video_stays_what_it_is(tmp_path):
    names = ["level_1.prompt.txt", "level_10.prompt.txt", "level_10.first.png", "notes/logo.png"]
    found = problems(loose(tmp_path, [*names, "level_1.final.png", "chart.png", "x.prompt.txt"]))
    assert found == {"level_1": "TEXT-TO-VIDEO", "level_10": "", "x": "TEXT-TO-VIDEO"}


def test_an_image_whose_prompt_has_another_name_is_a_refusal(tmp_path):
    found = problems(loose(tmp_path, ["a.prompt.txt", "b.txt", "b.png", "v/prompt.txt", "v/x.png"]))
    assert found["a"] == "TEXT-TO-VIDEO"
    assert "prompt.txt: got 'b.txt' and 'b.png'" in found["b"]
    assert "got 'v/prompt.txt' and 'v/x.png'" in found["v/prompt"]


def test_two_images_of_one_sample_are_refused(tmp_path):
    (text,) = problems(loose(tmp_path, ["a.prompt.txt", "a.png", "a.jpg"])).values()
    assert "got also first.jpg, expected one member of a kind" in text


def test_links_of_a_folder_stay_inside_or_are_refused(tmp_path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(PNG)
    folder = tmp_path / "in"
    loose(folder, [f"{key}.prompt.txt" for key in "abcd"] + ["a.first.png", "sub/e.prompt.txt"])
    os.symlink("a.first.png", folder / "b.first.png")
    os.symlink("../secret.png", folder / "c.first.png")
    os.symlink("none", folder / "d.first.png")
    os.symlink(".", folder / "circle")
    os.symlink(tmp_path, folder / "out")
    found = problems(str(folder))
    assert found["a"] == found["b"] == ""
    assert f"'c.first.png', which leads out of {folder}" in found["c"]
    assert "d: first.png: got No such file" in found["d"]
    assert "leads out of" in found["out.unreadable"]
    assert set(found) == {*"abcd", "sub/e", "out.unreadable"}


def test_a_snapshot_of_the_hub_s_cache_is_made_of_links(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "r"
    loose(blobs, ["x.png", "y.txt"])
    snapshot.mkdir(parents=True)
    os.symlink("../../blobs/y.txt", snapshot / "a.prompt.txt")
    os.symlink("../../blobs/x.png", snapshot / "a.first.png")
    assert problems(str(snapshot)) == {"a": ""}
    os.rename(tmp_path / "blobs", tmp_path / "elsewhere")
    os.symlink("elsewhere", tmp_path / "blobs")  # blobs that are a link are nobody's cache
    assert "leads out of" in problems(str(snapshot))["a"]


def test_tars_beside_loose_samples_and_below_are_seen(tmp_path):
    planted(tmp_path, member("t.prompt.txt", b"Go.") + END)
    planted(tmp_path, b"\0\5\026\7junk", "._a.tar")
    loose(tmp_path, ["l.prompt.txt", "l.first.png", "deep/old.tar"])
    found = problems(str(tmp_path))
    assert list(found) == ["t", "l", "deep/old.tar.unreadable"]
    assert "name it as a source of its own" in found["deep/old.tar.unreadable"]
    os.symlink("/dev/null", tmp_path / "b.tar")
    with pytest.raises(ValueError, match=r"b\.tar', which leads out of .*name this one itself"):
        list_samples(str(tmp_path))


@pytest.mark.parametrize("name", ["a\x1b[31m", "a\x9b31m", "a\nb", "a\u202eb", "a\u2028b"])
def test_a_key_cannot_steer_a_terminal(tmp_path, capsys, name):
    both = member(f"{name}.prompt.txt", b"Go.") + member("b.prompt.txt", b"G")
    source = planted(tmp_path, both + END)
    assert main(["list", source]) == 3
    out, err = capsys.readouterr()
    assert out == "b\t1\ttext\t-\n"
    assert "".join((out + err).split()).isprintable()
    assert "expected a key in UTF-8, on one line" in err
    assert err.splitlines()[-1] == "members: 2 seen, 1 used, 1 of refused samples, 0 ignored"


def test_a_name_without_end_is_a_refusal(tmp_path):
    long = member("x", b"n." * 50_000 + b"prompt.txt", kind=b"L") + member("y", b"Go.")
    ((key, text),) = problems(planted(tmp_path, long + END)).items()
    assert key.startswith("n.n.")
    assert "a name of 100010 characters" in text


def test_braces_that_stand_for_a_billion_names_are_refused_at_once(tmp_path):
    for pattern in (
        "{0..999999999}",
        "x{000..999999999}.tar",
        f"{{0..{'9' * 5000}}}",
        "{9..-999999}",
    ):
        with pytest.raises(ValueError, match="got a range"):
            list_samples(str(tmp_path / pattern))
    with pytest.raises(ValueError, match="expected a"):
        list_samples("{" * 5000 + "a,b" + "}" * 5000)


VBVR = "In-Domain_50/O-30_bookshelf_data-generator"


def test_vbvr_folders_with_other_endings_and_capitals(tmp_path):
    names = ["0/first_frame.jpg", "1/First_Frame.PNG", "2/FIRST_FRAME.WEBP", "3/first_frame.png"]
    prompts = ["0/prompt.txt", "1/Prompt.txt", "2/PROMPT.TXT", "3/prompt.txt"]
    source = loose(tmp_path / "in" / VBVR, [*names, *prompts, "3/final_frame.jpg"])
    packed = pack(tmp_path / "in", tmp_path / "out.tar")
    assert packed.keys == tuple(f"{VBVR}/{n}" for n in range(4))
    assert not packed.refused
    assert packed.tally.told() == "members: 9 seen, 9 used, 0 of refused samples, 0 ignored"
    assert main(["pack", source, str(tmp_path / "again.tar")]) == 0


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("first_frame.gif", "got no such file, and 'first_frame.gif' beside it"),
        ("image.png", "got no such file, and 'image.png' beside it"),
    ],
)
def test_a_vbvr_folder_with_another_image_is_refused_by_its_name(tmp_path, image, told):
    loose(
        tmp_path / "in" / VBVR, [f"0/{image}", "0/prompt.txt", "1/first_frame.png", "1/prompt.txt"]
    )
    packed = pack(tmp_path / "in", tmp_path / "out.tar")
    assert packed.keys == (f"{VBVR}/1",)
    (refused,) = packed.refused
    assert told in str(refused)


def test_vbvr_refuses_twins_and_what_leads_out(tmp_path):
    tree = tmp_path / "in" / VBVR
    loose(tree, ["0/first_frame.png", "0/first_frame.jpg", "0/prompt.txt", "1/prompt.txt"])
    loose(tree, ["2/prompt.txt", "2/first_frame.png", "3/prompt.txt"])
    loose(tmp_path / "far", ["first_frame.png", "prompt.txt"])
    os.symlink(tmp_path / "far" / "first_frame.png", tree / "1" / "first_frame.png")
    os.symlink("../2/first_frame.png", tree / "3" / "first_frame.png")
    os.symlink(tmp_path / "far", tree / "4")
    planted(tmp_path, END)
    os.symlink(tmp_path / "a.tar", tree / "5.tar")
    packed = pack(tmp_path / "in", tmp_path / "out.tar")
    assert packed.keys == (f"{VBVR}/2", f"{VBVR}/3")
    told = [str(error) for error in packed.refused]
    assert sum("which leads out of" in text for text in told) == 3
    assert sum("expected one first frame" in text for text in told) == 1
    assert len(told) == 4


def test_vbvr_archives_whose_members_have_no_name(tmp_path):
    data = b"".join(member(name) for name in (".", "./", "/", "..")) + member(
        "0/prompt.txt", b"Go."
    )
    packed = pack(
        planted(tmp_path, data + member("0/first_frame.png", PNG) + END), tmp_path / "o.tar"
    )
    assert packed.keys == ("0",) or packed.keys == ("a/0",)
