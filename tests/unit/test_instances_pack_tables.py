"""Tables into tars: RULER-Bench's rows, CSV and JSON lines."""

import csv
import io
import json
import sys

import pytest
from PIL import Image

from vlmteach.instances import decode, pack, read_held_out, read_samples


def picture(colour="red", format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format)
    return buffer.getvalue()


PNG = picture()


def plant(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def packed(tmp_path, source, **options):
    out = tmp_path / "out.tar"
    report = pack(source, out, **options)
    instances = [decode(raw) for raw in read_samples(str(out))] if report.keys else []
    return {i.key: i for i in instances}, [str(error) for error in report.refused]


def ruler_row(index, **fields):
    row = {
        **{
            "prompt": f"Prompt {index}",
            "index": index,
            "task_name": "gravity",
            "category": "science",
        },
        "checklist": [{"Rule Coherence": "Does it fall?"}],
        **{"implicit_explanation": "It falls.", "input_image_path": None, "gt_image_path": ""},
    }
    return {**row, **fields}


def test_ruler(tmp_path):
    root = tmp_path / "in"
    plant(root, {"images/a.jpg": picture(format="JPEG"), "images/gt.jpg": picture("blue", "JPEG")})
    rows = [
        ruler_row(0, input_image_path="images/a.jpg", gt_image_path="images/gt.jpg"),
        ruler_row(1),
        ruler_row(2, checklist='[{"Rule Coherence": "Does it?"}]'),
        ruler_row(3, input_image_path="../../etc/passwd"),
        ruler_row(4, input_video_path="videos/a.mp4"),
        ruler_row(5, input_image_path="images/none.png"),
        ruler_row(None),
        ruler_row(0),
        ruler_row(6, checklist="[" * 99_999),
    ]
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in (root, root / "data.jsonl"):
        found, refused = packed(tmp_path, source)
        assert list(found) == ["gravity/0", "gravity/1", "gravity/2"]
        assert found["gravity/0"].first_frame is not None
        assert found["gravity/1"].first_frame is None
        assert found["gravity/0"].task == "gravity"
        assert found["gravity/0"].category == "science"
        parts = [
            "leads out of",
            "input_video_path",
            "no file",
            "index: got nothing",
            "again",
            "checklist",
        ]
        for text, part in zip(refused, parts, strict=True):
            assert part in text
    held = {h.key: h for h in read_held_out(str(tmp_path / "out.tar"))}
    assert (held["gravity/0"].final_png or b"").startswith(b"\x89PNG")
    assert (held["gravity/2"].meta or {})["checklist"] == [{"Rule Coherence": "Does it?"}]
    assert b"Does it" not in b"".join(
        data for raw in read_samples(str(tmp_path / "out.tar")) for data in raw.members.values()
    )


def test_a_csv_table(tmp_path):
    plant(tmp_path / "in", {"pics/a.png": PNG})
    columns = ["prompt", "image", "key", "frames", "fps", "seed", "goal", "process"]
    lines = [
        ["Go left", "pics/a.png", "one.left", "9", "8", "3", "Is it left?", "Whole? | Slow?"],
        ["Go right", "", "", "", "", "", "", ""],
        ["Go up", "/etc/hostname", "", "", "", "", "", ""],
        ["Go down", "", "", "nine", "", "", "", ""],
        ["", "", "", "", "", "", "", ""],
        ["Go on", "", "one_left", "", "", "", "", ""],
        ["Go in", "", "../x", "", "", "", "", ""],
        ["Go out", "", "", "", "", "", "Only a goal?", ""],
    ]
    table = tmp_path / "in" / "t.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *lines])
    found, refused = packed(tmp_path, table)
    assert list(found) == ["one_left", "00001"]
    one = found["one_left"]
    assert (one.frames, one.fps, one.seed) == (9, 8.0, 3)
    assert [q.text for q in one.queries] == ["Is it left?", "Whole?", "Slow?"]
    parts = [
        "t.csv: line 4: sample 00002: image: got '/etc/hostname', which leads out",
        "t.csv: line 5: sample 00003: json: frames: got 'nine'",
        "t.csv: line 6: sample 00004: prompt: got None",
        "t.csv: line 7: sample one_left: key: got 'one_left' again",
        "t.csv: line 8: sample ../x: key: got '../x'",
        "t.csv: line 9: sample 00007: json: queries: got",
    ]
    assert len(refused) == len(parts)
    for text, part in zip(refused, parts, strict=True):
        assert part in text


def test_a_json_lines_table(tmp_path):
    plant(tmp_path / "in", {"a.webp": picture(format="WEBP")})
    rows = [
        {"prompt": "Go", "image": "a.webp", "key": "d/a", "goal": "G?", "process": ["P?"]},
        {"prompt": "Go", "process": '["A|B?"]', "goal": "G?"},
        {"prompt": "Go", "frame": 9},
        {"prompt": "\ud800"},
        [],
    ]
    table = tmp_path / "in" / "t.jsonl"
    table.write_text("\n\n".join(map(json.dumps, rows)))
    found, refused = packed(tmp_path, table)
    assert list(found) == ["d/a", "00001"]
    assert found["00001"].queries[1].text == "A|B?"
    assert found["d/a"].first_frame is not None
    for text, part in zip(refused, ["column 'frame'", "prompt: got", "line: got"], strict=True):
        assert part in text


def save_parquet(path, columns):
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path)


def test_ruler_as_the_hub_serves_it(tmp_path):
    root = tmp_path / "in"
    plant(root, {"images/a.png": PNG})
    rows = [
        ruler_row(0, input_image_path="images/a.png"),
        ruler_row(1),
        ruler_row(2, input_image_path="../../etc/passwd"),
    ]
    for row in rows:
        row["checklist"] = json.dumps(row["checklist"])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    save_parquet(root / "data.parquet", columns)
    instances, refused = packed(tmp_path, root / "data.parquet")
    assert set(instances) == {"gravity/0", "gravity/1"}
    assert instances["gravity/0"].first_frame is not None
    assert instances["gravity/1"].first_frame is None
    assert len(refused) == 1
    assert "leads out of" in refused[0]
    held_out = next(read_held_out(str(tmp_path / "out.tar")))
    assert held_out.meta is not None
    assert held_out.meta["checklist"] == [{"Rule Coherence": "Does it fall?"}]


def test_images_inside_a_parquet_table(tmp_path):
    from datetime import date

    cells = [{"bytes": PNG, "path": None}, {"bytes": b"no image", "path": "a.png"}, None]
    prompts = ["one", "two", "three"]
    save_parquet(tmp_path / "a.parquet", {"prompt": prompts, "image": cells, "seed": [1, 2, None]})
    instances, refused = packed(tmp_path, tmp_path / "a.parquet")
    first = instances["00000"].first_frame
    assert first is not None
    assert first.size == (8, 8)
    assert instances["00002"].first_frame is None
    assert [i.seed for i in instances.values()] == [1, None]
    assert "00001" in refused[0]
    save_parquet(tmp_path / "b.parquet", {"prompt": ["x"], "task": [date(2026, 1, 1)]})
    assert "convert the column" in packed(tmp_path, tmp_path / "b.parquet")[1][0]


def test_a_broken_parquet_file_is_an_error_row(tmp_path):
    save_parquet(tmp_path / "a.parquet", {"prompt": ["a", "b"]})
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    instances, refused = packed(tmp_path, tmp_path / "a.parquet", format="table")
    assert not instances
    assert "expected a Parquet file" in refused[0]


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, monkeypatch):
    save_parquet(tmp_path / "a.parquet", {"prompt": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'vlmteach\[benchmarks\]'"):
        pack(tmp_path / "a.parquet", tmp_path / "out.tar")
