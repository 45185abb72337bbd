"""Tables as people save them: quotes left open, other encodings, numbers with a point, no end."""

import json
import os
from pathlib import Path

import pytest

from vlmteach import text
from vlmteach.instances import decode, pack, read_samples
from vlmteach.instances.pack import Format
from vlmteach.instances.rows import csv_rows, json_rows
from vlmteach.instances.sample import InstanceError

PNG = bytes.fromhex(  # one red pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "i.png").write_bytes(PNG)

    def go(data, name="t.csv", format: Format = "auto"):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        report = pack(tmp_path / name, tmp_path / "out.tar", format)
        good = (
            [decode(raw) for raw in read_samples(str(tmp_path / "out.tar"))] if report.keys else []
        )
        told = [str(error) for error in report.refused]
        assert all(line.isprintable() for line in told)
        return [i.prompt for i in good], told, good

    return go


HEAD = "prompt,image\n"


@pytest.mark.parametrize(
    ("rows", "good", "told"),
    [
        ('"Go left,i.png\nStop,i.png\n', [], "lines 2 to 3: sample 00000: row: got unexpected end"),
        (
            '"Go left,i.png\nStop,i.png\n"Up",i.png\n',
            [],
            "lines 2 to 4: sample 00000: row: got ',' ",
        ),
        ('"Go left,i.png\nStop 5",i.png\n', [], "got lines that look like rows of their own"),
        ('"A,i.png\nB,i.png\nC 5",i.png\n', [], "lines 2 to 4: sample 00000: row: got lines that"),
        ('"Go 5" left",i.png\nUp,i.png\n', ["Up"], "line 2: sample 00000: row: got ',' expected"),
        ("Go left, then up,i.png\nUp,i.png\n", ["Up"], "got 3 cells where the header has 2"),
        ("Go left\nUp,i.png\n", ["Up"], "got 1 cells where the header has 2"),
        (f"{'x' * 131073},i.png\nUp,i.png\n", ["Up"], "got field larger than field limit (131072)"),
        (f'"{"x" * 131073}",i.png\nUp,i.png\n', ["Up"], "got field larger than field limit"),
        (
            b"Go \xff,i.png\nUp,i.png\n",
            ["Up"],
            "line 2: sample 00000: row: got a byte that is none",
        ),
    ],
)
def test_a_spoilt_row_is_refused_by_its_lines_and_the_others_are_read(packed, rows, good, told):
    rows = rows if isinstance(rows, bytes) else rows.encode()
    prompts, (refusal,), _ = packed(HEAD.encode() + rows)
    assert prompts == good
    assert told in refusal


def test_without_images_whole_rows_in_a_quote_are_seen_too(packed):
    prompts, (refusal,), _ = packed('key,prompt\na,"Go left\nb,Stop"\nc,Up\n')
    assert prompts == ["Up"]
    assert "rows of their own" in refusal


def test_rows_that_only_look_spoilt_are_read(packed):
    rows = (
        'Go 5" left,i.png\n"Go ""left"", up",i.png\n"Line one\nline two",i.png\nUp,i.png,,\n\nOn,\n'
    )
    prompts, told, good = packed(HEAD + rows)
    assert prompts == ['Go 5" left', 'Go "left", up', "Line one\nline two", "Up", "On"]
    assert not told
    assert [i.first_frame is None for i in good] == [False] * 4 + [True]


@pytest.mark.parametrize("head", ["prompt,prompt\nx,y\n", '"prompt\nx,y\n'])
def test_a_spoilt_header_is_refused(packed, head):
    _, (refusal,), _ = packed(head)
    assert "header: got" in refusal


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_say_what_they_are(packed, encoding):
    lines = json.dumps({"prompt": "Grün", "image": "i.png"}, ensure_ascii=False) + "\r\n\r\n"
    for name, rows in (("t.csv", HEAD + "Grün,i.png\r\n"), ("t.jsonl", lines)):
        prompts, told, good = packed(rows.encode(encoding), name)
        assert (prompts, told) == (["Grün"], [])
        assert good[0].first_frame is not None
    array = f"\n [{lines.strip()}]"
    assert packed(array.encode(encoding), "t.json")[0] == ["Grün"]


def test_utf_16_without_its_mark_is_refused(packed):
    for name, rows in (("t.csv", HEAD + "Go,i.png\n"), ("t.jsonl", '{"prompt": "Go"}\n')):
        prompts, told, _ = packed(rows.encode("utf-16-le"), name)
        assert not prompts
        assert told


@pytest.mark.parametrize("value", ["9.0", "9", " 9 ", "9e0"])
def test_whole_numbers_with_a_point_are_whole(packed, value):
    _, told, (found,) = packed(f"prompt,frames,seed,key,fps\nGo,{value},7.0,3.0,8\n")
    assert (told, found.frames, found.seed, found.fps) == ([], 9, 7, 8.0)
    row = json.dumps([{"prompt": "Go", "frames": 9.0, "seed": 7.0, "key": 3.0, "height": None}])
    _, told, (found,) = packed(row, "t.json")
    assert (told, found.frames, found.seed, found.key) == ([], 9, 7, "3")
    _, told, (found,) = packed('{"prompt": "Go", "frames": 9.0, "seed": NaN}', "t.jsonl")
    assert (told, found.frames, found.seed) == ([], 9, None)


@pytest.mark.parametrize("value", ["9.5", "1e400", "nan", "9007199254740993.0", "-9", "9" * 5000])
def test_other_numbers_are_refused(packed, value):
    _, (refusal,), _ = packed(f"prompt,seed\nGo,{value}\n")
    assert "json: seed: got" in refusal


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ('[{"prompt": "Go"}, 3]', "entry 1: sample 00001: line: got 3"),
        ('[{"prompt": "Go"}', "t.json: sample t.json: file: got"),
        ('{"prompt": "Go"}\n{"prompt": "Go"', "line 2: sample 00001: line: got"),
        ("[" * 100_000, "file: got"),
        ('{"a":' * 100_000, "line: got"),
        (b'{"prompt": "Go"}\n{"prompt": "\xff"}\n', "line: got a byte that is no UTF-8"),
    ],
)
def test_spoilt_json_is_refused_by_its_place(packed, data, told):
    prompts, refusals, _ = packed(data, "t.json")
    assert prompts in ([], ["Go"])
    assert told in refusals[-1]
    assert len(refusals) == 1


def test_a_line_without_end_ends_the_table(packed, monkeypatch):
    monkeypatch.setattr(text, "LONGEST_LINE", 100)
    for name, head, row in (("t.csv", HEAD, "Go,i.png\n"), ("t.jsonl", "", '{"prompt": "Go"}\n')):
        prompts, (refusal,), _ = packed(head + row + "x" * 101 + "\n" + row, name)
        assert prompts == ["Go"]
        assert "a line of more than 100 characters" in refusal


@pytest.mark.parametrize("rows", [csv_rows, json_rows])
def test_a_pipe_or_a_device_is_no_table(tmp_path, rows):
    os.mkfifo(tmp_path / "t")
    for table in (tmp_path / "t", Path("/dev/zero"), tmp_path, tmp_path / "none"):
        (refusal,) = rows(table)
        assert isinstance(refusal, InstanceError)


def test_a_file_larger_than_its_bound_is_not_read_whole(tmp_path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**40)  # holes, no disk
    with pytest.raises(ValueError, match="more than 10 bytes"):
        text.read_file(tmp_path / "big", 10)


def test_an_image_a_table_names_must_be_a_file_of_its_folder(packed, tmp_path):
    (tmp_path / "far").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(2**40)
    os.symlink("/etc/hostname", tmp_path / "out.png")
    os.symlink("loop.png", tmp_path / "loop.png")
    os.symlink("i.png", tmp_path / "in.png")
    names = ["pipe.png", "big.png", "out.png", "loop.png", "none.png", "far", "in.png"]
    prompts, told, _ = packed(HEAD + "".join(f"Go,{name}\n" for name in names))
    assert prompts == ["Go"]
    parts = ["no file", "bytes, expected", "leads out of", "leads to itself", "no file", "no file"]
    assert len(told) == len(parts)
    assert all(part in line for part, line in zip(parts, told, strict=True))
