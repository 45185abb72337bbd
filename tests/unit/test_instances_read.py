"""Samples out of tars and folders: the good ones decoded, the bad ones named."""

import io
import json
import tarfile
from typing import Literal

import pytest
from PIL import Image

from vlmteach.instances import (
    InstanceError,
    RawSample,
    content_digest,
    decode,
    list_keys,
    read_held_out,
    read_samples,
)
from vlmteach.types import Query

QUERIES = {"goal": "Is it there?", "process": ["Is it whole?", "Is it slow?"]}


def picture(mode="RGB", size=(6, 4), colour=None, format="PNG", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, format, **options)
    return buffer.getvalue()


def noise():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    return buffer.getvalue()


PNG = picture(colour=(200, 10, 30))


def write_tar(path, members, mode: Literal["w", "w:gz"] = "w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def sample(key, prompt="Move it.", **members):
    given = {"prompt.txt": prompt.encode(), "first.png": PNG}
    given |= {name.replace("_", "."): data for name, data in members.items()}
    return [(f"{key}.{suffix}", data) for suffix, data in given.items()]


def raw(**members):
    given = {name.replace("_", "."): data for name, data in members.items()}
    return RawSample("k", "a.tar", {"prompt.txt": b"Go.", **given})


def fault(**members):
    with pytest.raises(InstanceError) as caught:
        decode(raw(**members))
    return caught.value


def test_a_full_sample(tmp_path):
    fields = {"frames": 9, "fps": 12, "height": 64, "width": 32, "seed": 5, "queries": QUERIES}
    fields |= {"task": "T", "category": "C", "split": None}
    source = write_tar(
        tmp_path / "a.tar", sample("d/x", " Move it.\n", json=json.dumps(fields).encode())
    )
    (found,) = read_samples(source)
    instance = decode(found)
    assert instance.key == "d/x"
    assert instance.prompt == "Move it."
    assert instance.first_frame is not None
    assert instance.first_frame.mode == "RGB"
    assert instance.first_frame.getpixel((0, 0)) == (200, 10, 30)
    assert content_digest(found) == instance.digest
    assert (instance.frames, instance.fps, instance.seed) == (9, 12.0, 5)
    assert (instance.height, instance.width) == (64, 32)
    assert (instance.task, instance.category, instance.split) == ("T", "C", None)
    assert instance.queries == (
        Query("Is it there?", "goal"),
        Query("Is it whole?", "process"),
        Query("Is it slow?", "process"),
    )


def test_without_a_first_frame_it_is_text_to_video(tmp_path):
    source = write_tar(tmp_path / "a.tar", [("x.prompt.txt", b"Go.")])
    instance = decode(next(read_samples(source)))
    assert instance.first_frame is None


def test_digest_tells_every_member_apart_and_ignores_the_key():
    given = {"prompt.txt": b"Go.", "first.png": PNG, "json": b"{}"}
    base = content_digest(RawSample("k", "s", given))
    assert content_digest(RawSample("other", "t", given | {"prompt.txt": b" Go.\n"})) == base
    changed = [
        given | {"prompt.txt": b"Stop."},
        given | {"first.png": PNG + b"x"},
        given | {"json": b'{"frames": 5}'},
        {"prompt.txt": b"Go.", "json": b"{}"},
        {"prompt.txt": b"Go.", "first.png": PNG},
        {"prompt.txt": b"Go.{}", "first.png": PNG},  # almost the same bytes in a row
    ]
    digests = [content_digest(RawSample("k", "s", members)) for members in changed]
    assert len({base, *digests}) == len(digests) + 1


def test_held_out_members_never_reach_a_raw_sample(tmp_path):
    members = sample("x", final_png=b"F", gt_mp4=b"V", meta_json=b'{"answer": 3}')
    source = write_tar(tmp_path / "a.tar", members)
    (found,) = read_samples(source)
    assert set(found.members) == {"prompt.txt", "first.png"}
    (held,) = read_held_out(source)
    assert (held.key, held.final_png, held.ground_truth_mp4) == ("x", b"F", b"V")
    assert held.meta == {"answer": 3}


def test_broken_metadata_is_refused_when_scoring(tmp_path):
    source = write_tar(tmp_path / "a.tar", sample("x", meta_json=b"[1]"))
    with pytest.raises(InstanceError, match=r"meta\.json: got \[1\], expected a JSON object"):
        list(read_held_out(source))


@pytest.mark.parametrize(
    "shape",
    ["{tmp}/a-{{0..1}}.tar", "{tmp}/a-0.tar,{tmp}/a-1.tar", "{tmp}", ["{tmp}/a-{{0,1}}.tar"]],
)
def test_every_way_to_name_sources(tmp_path, shape):
    write_tar(tmp_path / "a-0.tar", sample("x") + sample("y"))
    write_tar(tmp_path / "a-1.tar", sample("z"))
    texts = shape if isinstance(shape, list) else [shape]
    sources = [text.format(tmp=tmp_path) for text in texts]
    assert list_keys(sources) == ["x", "y", "z"]
    assert [decode(found).key for found in read_samples(sources)] == ["x", "y", "z"]


def test_loose_files_and_compressed_tars(tmp_path):
    folder = tmp_path / "loose"
    (folder / "d").mkdir(parents=True)
    for name, data in sample("d/x") + sample("d/x y") + [("README.md", b"hello")]:
        (folder / name).write_bytes(data)
    packed = write_tar(tmp_path / "b.tar.gz", sample("z"), "w:gz")
    assert list_keys([str(folder), packed]) == ["d/x y", "d/x", "z"]
    assert all(decode(found).first_frame for found in read_samples([str(folder), packed]))


@pytest.mark.parametrize(
    "source", ["pipe:touch {tmp}/owned", "https://host/a.tar", "file:{tmp}/a.tar", "hf://x/a.tar"]
)
def test_only_local_files_are_opened(tmp_path, source):
    with pytest.raises(ValueError, match="only local files are opened"):
        read_samples(source.format(tmp=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_missing_or_stand_twice(tmp_path):
    source = write_tar(tmp_path / "a.tar", sample("x"))
    with pytest.raises(ValueError, match="expected a tar or folder that exists"):
        read_samples([source, f"{tmp_path}/b.tar"])
    with pytest.raises(ValueError, match="twice"):
        read_samples([source, str(tmp_path)])
    with pytest.raises(ValueError, match="got no source"):
        read_samples([])


def test_a_key_seen_before_becomes_a_refusal_of_its_own(tmp_path):
    first = write_tar(tmp_path / "a.tar", sample("x", "First."))
    second = write_tar(tmp_path / "b.tar", sample("x", "Second.") + sample("y"))
    found = list(read_samples([first, second]))
    assert [s.key for s in found] == ["x", "x.duplicate2", "y"] == list_keys([first, second])
    assert decode(found[0]).prompt == "First."
    with pytest.raises(InstanceError, match="first seen in") as caught:
        decode(found[1])
    assert (caught.value.field, caught.value.source) == ("key", second)


def test_a_cut_tar_gives_its_whole_samples_and_one_refusal(tmp_path):
    whole = write_tar(tmp_path / "a.tar", sample("x") + sample("y"))
    data = (tmp_path / "a.tar").read_bytes()
    header = data.index(b"y.first.png")
    other = write_tar(tmp_path / "b.tar", sample("z"))
    # Inside a payload, on a member's boundary, inside a header.
    for cut in (header + 520, header, header + 100):
        (tmp_path / "a.tar").write_bytes(data[:cut])
        found = list(read_samples([whole, other]))
        assert [s.key for s in found] == ["x", "a.tar.unreadable", "z"]
        assert list_keys([whole, other]) == ["x", "a.tar.unreadable", "z"]
        assert decode(found[0]).prompt == "Move it."
        with pytest.raises(InstanceError, match=r"a\.tar"):
            decode(found[1])


def test_a_damaged_header_is_not_the_end(tmp_path):
    source = write_tar(tmp_path / "a.tar", sample("x") + sample("y") + sample("z"))
    data = bytearray((tmp_path / "a.tar").read_bytes())
    at = data.index(b"y.prompt.txt")
    data[at : at + 5] = b"#####"
    (tmp_path / "a.tar").write_bytes(data)
    assert list_keys(source) == ["a.tar.unreadable"]


@pytest.mark.parametrize("content", [b"", b"not a tar" * 200])
def test_what_is_no_tar_is_refused_and_the_run_goes_on(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    write_tar(tmp_path / "b.tar", sample("x"))
    assert list_keys(str(tmp_path)) == ["a.tar.unreadable", "x"]


def test_a_source_without_samples_is_refused(tmp_path):
    source = write_tar(tmp_path / "a.tar", [("x.md", b"hello"), ("x.png", PNG)])
    (found,) = read_samples(source)
    with pytest.raises(InstanceError, match=r"got no sample, expected <key>\.prompt\.txt"):
        decode(found)


def test_a_link_out_of_a_tar_is_refused_and_notes_are_passed_over(tmp_path):
    source = write_tar(tmp_path / "a.tar", [*sample("x"), ("__meta__/a.json", b"{}")])
    with tarfile.open(source, "a") as tar:
        link = tarfile.TarInfo("y.prompt.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    x, y = read_samples(source)
    assert decode(x).key == "x"
    with pytest.raises(InstanceError, match="got a link to '/etc/hostname', which leads out of"):
        decode(y)


def test_two_members_of_a_kind_are_refused(tmp_path):
    jpeg = picture(format="JPEG", colour="red")
    source = write_tar(tmp_path / "a.tar", sample("x", first_jpg=jpeg))
    with pytest.raises(InstanceError, match=r"first\.jpg: got also first\.png"):
        decode(next(read_samples(source)))


def test_members_over_their_limit_are_never_read(tmp_path):
    source = write_tar(tmp_path / "a.tar", sample("x", "p" * 70_000) + sample("y"))
    found = list(read_samples(source))
    assert "prompt.txt" not in found[0].members
    with pytest.raises(
        InstanceError, match=r"prompt\.txt: got 70000 bytes, expected at most 65536"
    ):
        decode(found[0])
    assert decode(found[1]).key == "y"


def test_a_key_that_is_no_utf8_becomes_a_refusal(tmp_path):
    source = write_tar(tmp_path / "a.tar", sample("bad\udcff"))
    (found,) = read_samples(source)
    found.key.encode()
    with pytest.raises(InstanceError, match="expected a key in UTF-8"):
        decode(found)


def test_a_missing_prompt_is_named():
    with pytest.raises(InstanceError) as caught:
        decode(RawSample("k", "a.tar", {"first.png": PNG}))
    error = caught.value
    assert (error.key, error.source, error.field) == ("k", "a.tar", "prompt.txt")
    assert str(error) == (
        "a.tar: sample k: prompt.txt: got only ['first.png'], expected a prompt; "
        "add <key>.prompt.txt"
    )


def test_prompts_that_are_no_text():
    assert fault(prompt_txt=b" \n").field == "prompt.txt"
    assert "UTF-8" in str(fault(prompt_txt=b"Go \xff"))
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert decode(raw(prompt_txt="Go ü.".encode(encoding))).prompt == "Go ü."
    assert "NUL" in str(fault(prompt_txt="Go.".encode("utf-16-le")))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_content_decides_the_format(format):
    image = decode(raw(first_png=picture(colour="red", format=format))).first_frame
    assert image is not None
    assert image.size == (6, 4)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (0, 0), (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("1", 1, (255, 255, 255)),
    ],
)
def test_pictures_become_rgb_over_white(mode, colour, seen):
    image = decode(raw(first_png=picture(mode, colour=colour))).first_frame
    assert image is not None
    assert image.getpixel((1, 1)) == seen


def test_a_transparent_palette_colour_is_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=1)
    image = decode(raw(first_png=buffer.getvalue())).first_frame
    assert image is not None
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_a_turned_photo_is_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image = decode(raw(first_jpg=picture(format="JPEG", colour="red", exif=exif))).first_frame
    assert image is not None
    assert image.size == (4, 6)


def test_a_picture_bomb_is_refused_before_it_is_decoded(monkeypatch):
    bomb = bytearray(PNG)
    bomb[16:24] = (9000).to_bytes(4, "big") * 2  # IHDR's width and height
    import zlib

    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "got 9000x9000" in str(fault(first_png=bytes(bomb)))


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(50), PNG[:30], noise()[:2000]])
def test_damaged_pictures_are_refused(data):
    assert fault(first_png=data).field == "first.png"


def test_sixteen_bits_a_channel_are_refused():
    assert "8 bits a channel" in str(fault(first_png=picture("I;16", colour=3)))


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"[]", "json"),
        (b"{", "json"),
        (b"[" * 100_000, "json"),
        (b"\xff", "json"),
        (b'{"frame": 9}', "json: 'frame'"),
        (b'{"frames": 9.0}', "json: frames"),
        (b'{"frames": true}', "json: frames"),
        (b'{"frames": 0}', "json: frames"),
        (b'{"seed": -1}', "json: seed"),
        (b'{"seed": 99999999999999999999}', "json: seed"),
        (b'{"fps": NaN}', "json: fps"),
        (b'{"fps": 0}', "json: fps"),
        (b'{"fps": 1e-9}', "json: fps"),
        (b'{"height": -32, "width": 32}', "json: height"),
        (b'{"fps": "24"}', "json: fps"),
        (b'{"height": 64}', "json: height, width"),
        (b'{"task": 3}', "json: task"),
        (b'{"task": "\\ud800"}', "json: task"),
        (b'{"queries": ["a?"]}', "json: queries"),
        (b'{"queries": {"goal": "a?"}}', "json: queries"),
        (b'{"queries": {"goal": "a?", "process": []}}', "json: queries.process"),
        (b'{"queries": {"goal": "a?", "process": ["b?","c?","d?","e?"]}}', "json: queries.process"),
        (b'{"queries": {"goal": " ", "process": ["b?"]}}', "json: queries.goal"),
    ],
)
def test_fields_are_checked_and_named(data, field):
    error = fault(json=data)
    assert error.field == field
    assert "got" in str(error)
    assert "expected" in str(error)


def test_webdataset_reads_the_same_samples(tmp_path):
    from webdataset.compat import WebDataset
    from webdataset.writer import TarWriter

    path = tmp_path / "a.tar"
    with TarWriter(str(path)) as writer:
        for key in ("d.e/x", "y"):
            writer.write({"__key__": key, "prompt.txt": "Go.", "first.PNG": PNG, "gt.mp4": b"V"})
    theirs = list(WebDataset(str(path), shardshuffle=False, empty_check=False))
    ours = list(read_samples(str(path)))
    assert [s.key for s in ours] == [s["__key__"] for s in theirs] == ["d.e/x", "y"]
    for a, b in zip(ours, theirs, strict=True):
        assert a.members == {name: b[name] for name in ("prompt.txt", "first.png")}
