"""The tar reader: what any tar may hold, and what a hostile one would like it to do."""

import gzip
import io
import os
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.hostile.plants import member
from vlmteach.instances import decode, list_keys, list_samples, read_samples
from vlmteach.instances.tar import LONGEST_EXTENSION, PADDING, BrokenSourceError, open_tar

REG, LINK, SYM = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
PNG = bytes.fromhex(  # one red pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


def sample(key):
    return member(f"{key}.prompt.txt", b"Go.") + member(f"{key}.first.png", PNG)


END = bytes(1024)


def planted(tmp_path, data, name="a.tar"):
    (tmp_path / name).write_bytes(data)
    return str(tmp_path / name)


def problems(source):
    """Key -> refusal; an empty text where the sample is good, with its first frame."""
    found = {}
    start = time.monotonic()
    for raw in read_samples(source):
        try:
            found[raw.key] = "" if decode(raw).first_frame else "TEXT-TO-VIDEO"
        except ValueError as error:
            found[raw.key] = str(error)
    assert time.monotonic() - start < 5
    assert list(found) == list_keys(source)
    assert all(text.isprintable() for text in found.values())
    return found


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_format_gives_what_the_interpreter_s_own_reader_gives(tmp_path, format, mode):
    names = ["a.txt", "BZh91AY.txt", "./b/" + "c" * 80 + ".txt", "d/" * 45 + "e.txt", "f/g.txt"]
    if format != tarfile.USTAR_FORMAT:
        names += ["h" * 300 + ".txt", "é" * 120 + ".txt", "bad\udcff.txt"]
    path = tmp_path / "x.tar"
    with tarfile.open(path, mode, format=format) as tar:
        for number, name in enumerate(names[1:] + names[:1]):
            info = tarfile.TarInfo(name)
            info.size = number * 300
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
            folder = tarfile.TarInfo(f"{number}")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    with tarfile.open(path) as tar:
        theirs = [(m.name, m.size, tar.extractfile(m).read()) for m in tar if m.isreg()]  # pyright: ignore
    with open_tar(path) as tar:
        ours = [(m.name, m.size, tar.read(m)) for m in tar.members()]
    assert ours == theirs


def test_tars_one_behind_the_other(tmp_path):
    data = sample("a") + END + bytes(10240) + sample("b") + END
    assert problems(planted(tmp_path, data)) == {"a": "", "b": ""}
    assert problems(planted(tmp_path, gzip.compress(data), "b.tar.gz")) == {"a": "", "b": ""}
    two = gzip.compress(sample("a") + END) + gzip.compress(sample("b") + END)
    assert problems(planted(tmp_path, two, "c.tar.gz")) == {"a": "", "b": ""}


def test_what_stands_behind_the_end_is_never_silent(tmp_path):
    found = problems(planted(tmp_path, sample("a") + sample("b") + END + b"junk" * 200))
    assert list(found) == ["a", "a.tar.unreadable"]
    assert "damaged at byte" in found["a.tar.unreadable"]


MINUS = (-1024 % 256**12).to_bytes(12, "big")  # GNU's binary form
LONG = tarfile.GNUTYPE_LONGNAME


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        (member("b.first.png", size=MINUS), "a size of -1024"),
        (member("b.first.png", pax={"size": "-3072"}), "a size of -3072"),
        (member("b.first.png", pax={"size": "1e3"}), "damaged"),
        (member("b.first.png", size=b"77777777777\0"), "more than there are"),
        (member("b.first.png", size=b"\x80" + b"\x7f" * 11), "more than there are"),
        (member("x", kind=LONG, size=b"33000000000\0"), "more than there are"),
        (member("x", bytes(LONGEST_EXTENSION + 1), kind=LONG), "a name or header of 262145 bytes"),
        (member("x", bytes(LONGEST_EXTENSION + 1), kind=b"x"), "a name or header of 262145 bytes"),
        (member("x", bytes(LONGEST_EXTENSION + 1), kind=b"g"), "a name or header of 262145 bytes"),
        (member("x", b"0 path=a\n", kind=b"x"), "a damaged header"),
        (member("x", b"-9 path=a\n", kind=b"x"), "a damaged header"),
        (member("x", b"path=a\n", kind=b"x"), "a damaged header"),
        (bytes(PADDING + 1024) + member("x"), f"more than {PADDING} zeros in a row"),
    ],
)
def test_headers_that_lead_nowhere_end_the_tar_by_name(tmp_path, blocks, told):
    found = problems(planted(tmp_path, sample("a") + sample("b") + blocks + END))
    assert list(found) == ["a", "a.tar.unreadable"]
    assert told in found["a.tar.unreadable"]


def test_thousands_of_long_names_in_a_row_are_no_recursion(tmp_path):
    data = sample("a") + member("x", b"n" * 300, kind=LONG) * 2000 + END
    assert problems(planted(tmp_path, data)) == {"a": ""}


def test_a_member_that_unfolds_without_end_is_not_unfolded(tmp_path):
    path = tmp_path / "a.tar.gz"
    with gzip.GzipFile(path, "wb", compresslevel=1) as file:
        file.write(sample("a") + sample("b") + member("c.bin", size=b"77777777777\0"))
    found = problems(str(path))  # 8 GiB, says the header
    assert list(found) == ["a", "a.tar.gz.unreadable"]
    assert "more than it may hold" in found["a.tar.gz.unreadable"]


def test_links_within_a_tar_are_followed(tmp_path):
    data = member("c.first.png", kind=SYM, link="./pictures/../link") + sample("a")
    data += member("b.first.png", kind=LINK, link="a.first.png") + member("b.prompt.txt", b"Go.")
    data += member("c.prompt.txt", b"Go.") + member("link", kind=SYM, link="b.first.png")
    data += member("d/d.first.png", kind=SYM, link="../a.first.png") + member(
        "d/d.prompt.txt", b"G"
    )
    source = planted(tmp_path, data + END)
    assert problems(source) == dict.fromkeys(("c", "a", "b", "d/d"), "")
    # A pass backwards through a compressed tar may take minutes.
    found = problems(planted(tmp_path, gzip.compress(data + END), "b.tar.gz"))
    assert found["a"] == ""
    assert all("a link in a compressed tar" in found[key] for key in ("b", "c", "d/d"))


@pytest.mark.parametrize(
    ("type", "link", "told"),
    [
        (SYM, "/etc/hostname", "leads out"),
        (SYM, "../x", "leads out"),
        (SYM, "..", "leads out"),
        (SYM, "d/../../x", "leads out"),
        (LINK, "/etc/hostname", "leads out"),
        (SYM, "none", "not in the tar"),
        (SYM, "b.first.png", "leads to itself"),
        (tarfile.FIFOTYPE, "", "a device, a pipe"),
        (tarfile.CHRTYPE, "", "a device, a pipe"),
    ],
)
def test_what_is_no_file_of_the_tar_is_refused_by_member(tmp_path, type, link, told):
    blocks = member("b.prompt.txt", b"Go.") + member("b.first.png", kind=type, link=link)
    found = problems(planted(tmp_path, blocks + sample("a") + END))
    assert found["a"] == ""
    assert "first.png: got" in found["b"]
    assert told in found["b"]


def test_a_sparse_member_is_refused_and_the_others_read(tmp_path):
    header = bytearray(member("b.first.png", b"x" * 512, kind=tarfile.GNUTYPE_SPARSE))
    header[482] = 1  # its map goes on in the next block, and there ends
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    data = member("b.prompt.txt", b"Go.") + bytes(header[:512]) + bytes(512) + bytes(header[512:])
    found = problems(planted(tmp_path, data + sample("a") + END))
    assert found["a"] == ""
    assert "a sparse file" in found["b"]


def test_members_sorted_by_type(tmp_path):
    keys = ["a", "b", "c"]
    data = b"".join(member(f"{k}.prompt.txt", b"Go.") for k in keys)
    data += b"".join(member(f"{k}.first.png", PNG) for k in keys)
    assert problems(planted(tmp_path, data + END)) == {"a": "", "b": "", "c": ""}
    found = problems(planted(tmp_path, gzip.compress(data + END), "b.tar.gz"))
    assert found.pop("a") == ""
    assert all("in a compressed tar" in text for text in found.values())


def test_cut_where_members_are_sorted_by_type_nothing_passes_without_its_image(tmp_path):
    keys = ["a", "b", "c"]
    texts = b"".join(member(f"{k}.prompt.txt", b"Go.") for k in keys)
    images = b"".join(member(f"{k}.first.png", PNG) for k in keys)
    for cut in range(512, len(texts + images), 512):
        found = problems(planted(tmp_path, (texts + images)[:cut]))
        assert "TEXT-TO-VIDEO" not in found.values()
        assert "a.tar.unreadable" in found
    whole = problems(planted(tmp_path, texts + END))
    assert whole == dict.fromkeys(keys, "TEXT-TO-VIDEO")


def test_a_tar_that_changes_under_the_reader_says_so(tmp_path):
    source = planted(tmp_path, sample("a") + sample("b") + END)
    for change in (b"", sample("a"), sample("b") + sample("a") + END + sample("c") + END):
        planted(tmp_path, sample("a") + sample("b") + END)
        samples = read_samples(source)
        assert decode(next(samples)).key == "a"
        os.utime(source, ns=(0, 0))  # in case the clock is coarse
        Path(source).write_bytes(change)  # in place, as `cp` does
        (last,) = samples
        assert last.key == "a.tar.unreadable"
        with pytest.raises(ValueError, match=r"changed while it was read"):
            decode(last)
        planted(tmp_path, sample("a") + sample("b") + END)
        samples = read_samples(source)
        next(samples)
        planted(tmp_path, change, "new.tar")
        os.replace(tmp_path / "new.tar", source)  # a new file: this pass ends on the old one
        assert [raw.key for raw in samples] == ["b"]


@pytest.mark.parametrize("name", ["a.tar", "a.prompt.txt"])
def test_a_pipe_among_the_sources_is_not_waited_for(tmp_path, name):
    planted(tmp_path, sample("b") + END, "b.tar")
    os.mkfifo(tmp_path / name)
    found = problems(str(tmp_path))
    assert found["b"] == ""
    assert "a pipe or a device" in "".join(found.values())
    with pytest.raises(ValueError, match="a pipe or a device, expected a tar or a folder"):
        list_keys(str(tmp_path / name))
    with pytest.raises(ValueError, match="a pipe or a device, expected a tar or a folder"):
        list_keys("/dev/zero")


def test_links_are_counted_once_and_every_member_is_accounted_for(tmp_path):
    data = (
        sample("a") + member("a.gif", b"x") + member("._a.first.png", b"x") + member("README", b"")
    )
    data += member("__meta__/x.json", b"{}") + member("b.first.png", PNG) + member(".", kind=b"5")
    tally = list_samples(planted(tmp_path, data + END)).tally
    assert tally.told() == (
        "members: 7 seen, 2 used, 1 of refused samples, 4 ignored (1 images that no sample took, "
        "such as 'a.gif'; 1 hidden, such as '._a.first.png'; 1 of another name, such as 'README'; "
        "1 notes, such as '__meta__/x.json')"
    )


def test_an_archive_cut_in_its_compression_gives_the_same_keys_twice(tmp_path):
    rows = b"".join(member(f"{n}.prompt.txt", os.urandom(900).hex().encode()) for n in range(50))
    whole = gzip.compress(rows + END)
    source = planted(tmp_path, whole[: len(whole) // 2], "a.tar.gz")
    found = problems(source)
    assert "a.tar.gz.unreadable" in found
    with open_tar(Path(source)) as tar, pytest.raises(BrokenSourceError):
        list(tar.members())
