"""What is hostile or broken is bounded and told, and what could be read of it is scanned."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from msgspec.structs import replace

from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.contents.opening import open_document
from keyturn.scanner.model import Document, Notice, Problem
from tests.scanner.packing import BUDGET, KEY, LINE, opened, saved_image, shows, tarred, zipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1 << 20


def problems(notices: list[Notice]) -> list[Problem]:
    return [notice.problem for notice in notices]


def nested(levels: int, pack: Callable[[bytes], bytes]) -> bytes:
    data = LINE
    for _ in range(levels):
        data = pack(data)
    return data


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: zipped({"a": data}), lambda data: tarred({"a": data})])
def test_depth_is_bounded_and_told(pack: Callable[[bytes], bytes]) -> None:
    assert shows(opened(nested(5, pack))[0][0])
    documents, notices = opened(nested(6, pack))
    assert documents == []
    assert problems(notices) == [Problem.BOUND]


@pytest.mark.parametrize(
    "bomb",
    [
        gzip.compress(bytes(24 * MIB)),
        bz2.compress(bytes(24 * MIB)),
        lzma.compress(bytes(24 * MIB), preset=0),
        zstd.compress(bytes(24 * MIB)),
        zipped({"a": bytes(24 * MIB)}),
        tarred({"a": bytes(24 * MIB)}, "w:gz"),
    ],
)
def test_ratio_is_bounded_and_told(bomb: bytes) -> None:
    notices = opened(bomb)[1]
    assert problems(notices) == [Problem.BOUND]
    assert "times its size" in notices[0].detail


def test_what_follows_a_bomb_in_an_archive_is_scanned() -> None:
    documents, notices = opened(zipped({"bomb": bytes(24 * MIB), "b": LINE}))
    assert problems(notices) == [Problem.BOUND]
    assert any(shows(document) for document in documents)


def test_bytes_in_all_are_bounded_and_told_once() -> None:
    small = replace(BUDGET, bytes=MIB, growth=0)
    documents, notices = opened(zipped({f"{n}": bytes([65 + n]) * (MIB // 4) for n in range(20)}), budget=small)
    assert problems(notices) == [Problem.BOUND]
    assert 3 <= len(documents) <= 5


def test_a_big_archive_may_unfold_to_more_than_a_small_one() -> None:
    budget = replace(BUDGET, bytes=1000, growth=8)
    data = gzip.compress(bytes(range(1, 127)) * 40)
    assert problems(opened(data, budget=budget)[1]) == [Problem.BOUND]
    assert opened(data, budget=replace(budget, growth=100))[1] == []


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_are_bounded_and_told_once(pack: Callable[[dict[str, bytes]], bytes]) -> None:
    documents, notices = opened(pack({f"{n}": b"x" for n in range(30)}), budget=replace(BUDGET, members=10))
    assert problems(notices) == [Problem.BOUND]
    assert len(documents) == 10


def test_countless_tiny_streams_are_bounded() -> None:
    documents, notices = opened(gzip.compress(b"x") * 100, budget=replace(BUDGET, members=10))
    assert problems(notices) == [Problem.BOUND]
    assert documents


def test_streams_that_follow_each_other_are_one() -> None:
    for pack in (gzip.compress, bz2.compress, lzma.compress, zstd.compress):
        (document,), notices = opened(pack(LINE[:20]) + pack(LINE[20:]) + bytes(512))
        assert bytes(document.data) == LINE
        assert notices == []


def test_bytes_after_a_stream_are_told() -> None:
    (document,), notices = opened(gzip.compress(LINE) + b"hidden")
    assert shows(document)
    assert problems(notices) == [Problem.CORRUPT]


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: bz2.compress(data, 1), lzma.compress, zstd.compress])
def test_a_stream_that_is_cut_off_is_told_and_what_there_is_scanned(pack: Callable[[bytes], bytes]) -> None:
    text = LINE + b"".join(b"%d " % (n * n * 7919) for n in range(20_000))
    documents, notices = opened(pack(text)[:-40])
    assert problems(notices) == [Problem.CORRUPT]
    assert any(shows(document) for document in documents)


def test_an_archive_that_is_cut_off_is_told_and_what_there_is_scanned() -> None:
    for data in (tarred({"a": LINE, "b": b"x" * 5000})[:-9000], zipped({"a": LINE, "b": b"x"})[:-120]):
        documents, notices = opened(data)
        assert any(shows(document) for document in documents)
        assert Problem.CORRUPT in problems(notices)


def test_an_archive_cut_off_inside_of_a_cut_stream_is_told_once() -> None:
    data = tarred({"a": LINE, "b": bytes(range(256)) * 5000}, "w:gz")
    documents, notices = opened(data[: len(data) // 2])
    assert shows(documents[0])
    assert problems(notices) == [Problem.CORRUPT]


def test_damaged_member_is_told_and_the_others_are_scanned() -> None:
    data = bytearray(zipped({"a": b"some text that is stored", "b": LINE}, zipfile.ZIP_STORED))
    data[data.index(b"some")] ^= 1
    documents, notices = opened(bytes(data))
    assert problems(notices) == [Problem.CORRUPT]
    assert notices[0].path == "sample!a"
    assert shows(documents[1])


def test_damaged_tar_header_is_told() -> None:
    data = bytearray(tarred({"a": LINE, "b": LINE}))
    data[1024 + 150] ^= 1
    documents, notices = opened(bytes(data))
    assert shows(documents[0])
    assert problems(notices) == [Problem.CORRUPT]


def test_a_gzip_that_holds_itself_ends() -> None:
    """A quine unfolds for ever; here each level holds the next, as many as there are."""
    data = nested(40, gzip.compress)
    assert problems(opened(data)[1]) == [Problem.BOUND]


def test_members_that_overlap_are_told_and_not_read_again_and_again() -> None:
    """Ten thousand entries of a directory for the same bytes must not cost ten thousand times as much."""
    body = zlib.compress(bytes(range(256)) * 4096)[2:-4]
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(body), MIB, 1, 0) + b"a" + body
    entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(body), MIB, 1, 0, 0, 0, 0, 0, 0)
    directory = (entry + b"a") * 10_000
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 10_000, 10_000, len(directory), len(local), 0)
    documents, notices = opened(local + directory + end)
    assert len(documents) == 1
    assert any("overlaps" in notice.detail for notice in notices)


def test_sizes_of_64_bits_are_read_and_not_believed() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(LINE)
    assert shows(opened(out.getvalue())[0][0])
    data = bytearray(out.getvalue())
    at = data.rindex(b"PK\1\2")
    data[at + 20 : at + 28] = b"\xff" * 8
    assert problems(opened(bytes(data))[1])


def test_encrypted_member_is_told() -> None:
    data = bytearray(zipped({"a": LINE}))
    for mark, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + at] |= 1
    documents, notices = opened(bytes(data))
    assert documents == []
    assert problems(notices) == [Problem.CLOSED]
    assert "encrypted" in notices[0].detail


def test_method_that_is_not_read_is_told() -> None:
    data = bytearray(zipped({"a": LINE}))
    data[data.index(b"PK\1\2") + 10] = 9
    assert "method" in opened(bytes(data))[1][0].detail


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_of_zip(method: int) -> None:
    documents, notices = opened(zipped({"a": LINE}, method))
    assert shows(documents[0])
    assert notices == []


def test_format_that_is_not_opened_is_told() -> None:
    assert problems(opened(b"7z\xbc\xaf\x27\x1c" + bytes(100))[1]) == [Problem.CLOSED]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\x04\x22\x4d\x18" + bytes(64), Problem.CLOSED),
        (b"LZIP\x01" + bytes(64), Problem.CLOSED),
        (b"\x1f\x9d\x90" + bytes(64), Problem.CLOSED),
        (b"%PDF-1.7\n1 0 obj\n", Problem.SKIPPED),
        (b"age-encryption.org/v1\n-> X25519 a\n", Problem.SKIPPED),
        (b"Salted__12345678", Problem.SKIPPED),
    ],
)
def test_what_is_scanned_only_as_it_stands_is_told(data: bytes, problem: Problem) -> None:
    """Neither a file nor a member that hides something is passed over in silence."""
    for given in (data + b"\n" + LINE, zipped({"member": data + b"\n" + LINE})):
        documents, notices = opened(given)
        assert any(shows(one) for one in documents)
        assert problems(notices) == [problem]


def test_links_and_devices_are_never_followed() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo("x" + kind.decode())
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        entry = tarfile.TarInfo("after")
        entry.size = len(LINE)
        archive.addfile(entry, io.BytesIO(LINE))
    documents, notices = opened(out.getvalue())
    assert [document.members for document in documents] == [("after",)]
    assert notices == []


def header_of(size: bytes, kind: bytes = b"0", name: bytes = b"a") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124:136] = size
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar  \0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"S", b"L", b"x", b"g"])
@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80" + b"\x7f" * 11, b"\x80\0\0\0\x3f" + b"\xff" * 7, b"\xff" * 12]
)
def test_a_tar_header_that_claims_more_than_there_is_reserves_nothing(kind: bytes, size: bytes) -> None:
    for data in (header_of(size, kind) + LINE * 100, gzip.compress(header_of(size, kind) + LINE * 100)):
        tracemalloc.start()
        notices = opened(data)[1]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert notices
        assert peak < 8 * MIB


def test_sparse_member_is_read_in_its_packed_form() -> None:
    header = bytearray(header_of(b"%011o\0" % len(LINE), b"S"))
    header[386:410] = b"%011o\0%011o\0" % (1 << 32, len(LINE))
    header[483:495] = b"%011o\0" % 0o77777777777
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    documents, notices = opened(bytes(header) + LINE.ljust(512, b"\0") + bytes(1024))
    assert bytes(documents[0].data) == LINE
    assert notices == []


@pytest.mark.parametrize("how", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names(how: int) -> None:
    name = "d" * 200 + "/ä\n.env"
    (document,) = opened(tarred({name: LINE}, how=how))[0]
    assert document.members == ("d" * 200 + "/ä\\x0a.env",)


def test_names_are_shown_so_that_they_break_nothing() -> None:
    out = zipped({"../../x\x1b[31m\u202e": LINE})
    out = out.replace(b"x\x1b", b"\xff\x1b")
    (document,) = opened(out)[0]
    assert document.members == ("../../\\xff\\x1b[31m\\u202e",)
    (document,) = opened(zipped({"n" * 5000: LINE}))[0]
    assert len(document.members[0]) == 1025


def test_memory_that_xz_and_zstandard_ask_for_is_bounded() -> None:
    tight = replace(BUDGET, xz_memory=MIB, window_log=12)
    text = bytes(range(1, 100)) * 5000
    wide = zstd.compress(
        text, options={zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.content_size_flag: 0}
    )
    for data in (lzma.compress(text, preset=9), wide):
        notices = opened(data, budget=tight)[1]
        assert problems(notices) == [Problem.BOUND]


def test_a_nested_archive_that_has_to_be_held_is_bounded() -> None:
    inner = zipped({"a": bytes(range(256)) * 100}, zipfile.ZIP_STORED)
    assert problems(opened(gzip.compress(inner), budget=replace(BUDGET, held=1000))[1]) == [Problem.BOUND]
    assert opened(tarred({"x": inner}), budget=replace(BUDGET, held=1000))[1] == []  # lies in memory anyway


@pytest.mark.parametrize("place", [0, 9_990, 10_000 - len(KEY), 10_000, 10_020, 30_000, 61_234])
@pytest.mark.parametrize("pack", [gzip.compress, lambda data: tarred({"a": data}, "w:gz")])
def test_a_secret_on_the_border_of_pieces_is_found_once_and_in_its_line(
    place: int, pack: Callable[[bytes], bytes]
) -> None:
    filler = b"0123456789 abcdefghij\n" * 4000
    text = filler[:place] + b" " + KEY + b" " + filler[place:]
    found = []
    documents = opened(pack(text), budget=replace(BUDGET, piece=10_000, overlap=500))[0]
    for document in documents:
        data = bytes(document.data)
        at = data.find(KEY)
        if at >= document.lead and (not document.tail or at < len(data) - document.tail):
            found.append(document.first_line + data.count(b"\n", 0, at))
    assert found == [1 + text.count(b"\n", 0, text.index(KEY))]
    assert len(documents) > 3


def test_big_wide_texts_and_programs_come_in_pieces() -> None:
    budget = replace(BUDGET, piece=10_000, overlap=500)
    filler = "0123456789 äbcdefghij\n" * 4000
    for data in (
        (f"{filler}{KEY.decode()} {filler}").encode("utf-16"),
        b"\x7fELF" + bytes(10) + b"some string here\0\1\2" * 4000 + KEY + bytes(20_000),
    ):
        documents = opened(data, budget=budget)[0]
        assert any(shows(document) for document in documents)
        assert max(len(document.data) for document in documents) < 300_000


def test_a_root_text_is_never_copied_or_cut() -> None:
    view = memoryview(LINE * 100_000)
    (document,) = open_document(Document(view, "a.txt"), Budget(piece=1000))
    assert isinstance(document, Document)
    assert document.data is view


def test_empty_and_tiny_documents() -> None:
    assert opened(b"") == ([], [])
    for size in range(1, 12):
        opened(b"PK\3\4\0\0\0\0\0\0\0\0"[:size])
        opened(b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0"[:size])
        opened(b"\xfd7zXZ\0\0\0\0\0\0"[:size])


def test_an_image_with_a_layer_that_is_missing_or_broken_is_told() -> None:
    image = saved_image([tarred({"a": LINE}), b"\x1f\x8b\x08broken" + bytes(600)], {})
    documents, notices = opened(image)
    assert any(shows(document) for document in documents)
    assert problems(notices) == [Problem.CORRUPT]


def test_notices_are_bounded_and_the_rest_is_counted() -> None:
    """A directory of a hundred thousand lies must not become a hundred thousand lines of a report."""
    data = zipped({f"{n}": b"x" for n in range(500)}).replace(b"PK\3\4", b"PK\3\5")
    notices = opened(b"PK\3\4" + data[4:])[1]
    assert len(notices) == 101
    assert "399 more" in notices[-1].detail


def test_a_big_member_of_an_image_is_never_held_whole() -> None:
    """An image is larger than memory may be: its layers are read as they come."""
    layer = tarred({"log": LINE * 400_000, "bin": b"\x7fELF\0" + b"abcdefgh\0" * 800_000})
    for data in (saved_image([layer], {}), saved_image([gzip.compress(layer, 1)], {})):
        tracemalloc.start()
        count = sum(1 for _ in open_document(Document(data, "image.tar"), replace(BUDGET, piece=MIB)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count > 8
        assert peak < 12 * MIB


def test_an_ordinary_text_loads_nothing_that_opens_archives() -> None:
    """A hook that scans three small files has no time for more."""
    program = (
        "import sys; from keyturn.scanner.contents.opening import open_document as o;"
        "from keyturn.scanner.contents.budget import Budget; from keyturn.scanner.model import Document as D;"
        "[list(o(D(b'key = 1\\n', name), Budget())) for name in ('a.py', 'a.js', 'a.css')];"
        "print({'lzma', 'bz2', 'zipfile', 'backports.zstd', 'keyturn.scanner.contents.unwrapping'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "set()"


_CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.contents.opening import open_document
from keyturn.scanner.model import Document, Notice
data = open(sys.argv[1], "rb").read()
told = [found.problem.value for found in open_document(Document(data, "bomb"), Budget()) if isinstance(found, Notice)]
print(sorted(set(told)))
"""


@pytest.fixture(scope="module")
def thin() -> bytes:
    """A gigabyte of zeros in a megabyte and a half of gzip."""
    zeros = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*(zeros.compress(bytes(16 * MIB)) for _ in range(64)), zeros.flush()])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gzip", "nested", "tar-gz", "bzip2", "zip"])
def test_bombs_stay_within_memory_and_time(tmp_path: Path, thin: bytes, name: str) -> None:
    """Terabytes in a file of a few megabytes must not take the machine down that scans it."""
    bombs: dict[str, Callable[[], bytes]] = {
        "gzip": lambda: thin,
        "nested": lambda: gzip.compress(gzip.compress(thin, 1), 1),
        "tar-gz": lambda: tarred({"a": thin, "b": thin}, "w:gz"),
        "bzip2": lambda: bz2.compress(bytes(32 * MIB), 1) * 20,
        "zip": lambda: zipped({f"{n}": thin for n in range(8)}),
    }
    bomb = tmp_path / "bomb"
    bomb.write_bytes(bombs[name]())
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, bomb], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert "bound" in done.stdout


def test_script_with_an_archive_behind_it_is_opened() -> None:
    """A jar that can be run begins with kilobytes of shell."""
    documents, notices = opened(b"#!/bin/sh\necho hello\n" * 400 + zipped({"a.py": LINE}))
    assert any(shows(document) for document in documents)
    assert not notices


def test_text_that_goes_on_in_utf16_is_read_in_both() -> None:
    documents, _ = opened(b"plain text\n" * 800 + LINE.decode().encode("utf-16-le"))
    assert any(shows(document) for document in documents)


def test_zip_that_says_it_is_empty_is_not_believed() -> None:
    documents, notices = opened(zipped({"a.py": LINE}) + b"PK\5\6" + bytes(18))
    assert any(shows(document) for document in documents)
    assert problems(notices) == [Problem.CORRUPT]


def test_folder_of_a_zip_that_holds_bytes_is_read() -> None:
    archive = zipped({"folder/": LINE}, zipfile.ZIP_STORED)
    directory = archive.rfind(b"PK\1\2")
    lying = archive[: directory + 24] + bytes(4) + archive[directory + 28 :]
    assert any(shows(document) for document in opened(lying)[0])


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("rest", [tarred({"b.py": LINE}), b"no archive: " + LINE])
def test_what_follows_the_end_of_a_tar_is_scanned(mode: str, rest: bytes) -> None:
    data = tarred({"a": b"first"}) + rest
    documents, notices = opened(gzip.compress(data) if mode == "w:gz" else data)
    assert any(shows(document) for document in documents)
    assert not notices


def test_image_without_its_layers_or_cut_off_is_told() -> None:
    layer = tarred({"a": LINE})
    whole = saved_image([layer, tarred({"b": b"x" * 20_000})], {})
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    manifest = members.pop("manifest.json")
    first, lost = [name for name in members if name.endswith("layer.tar")]
    reordered = tarred({"manifest.json": manifest, **members})
    assert problems(opened(reordered[:-20_000])[1])[:1] == [Problem.CORRUPT]
    assert problems(opened(tarred({"manifest.json": manifest, first: members[first]}))[1]) == [Problem.MISSING]
    assert lost in manifest.decode()


def test_every_member_of_one_name_of_an_image_is_scanned() -> None:
    whole = saved_image([tarred({"a": b"nothing"})], {})
    name = "blobs/x.txt"
    out = io.BytesIO(whole)
    with tarfile.open(fileobj=out, mode="a") as archive:
        for data in (LINE, b"another\n"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    assert any(shows(document) for document in opened(out.getvalue())[0])


@pytest.mark.parametrize("value", [b"a\\\\" * 700_000, b"QUJD\\\\n" * 400_000])
def test_a_notebook_that_never_ends_a_text_takes_no_more_memory_than_it_is_long(value: bytes) -> None:
    """An expression that could go back kept a place to go back to for each character: seventy times the file."""
    data = b'{\n"cells": [\n\n\n\n"image/png": "' + value
    tracemalloc.start()
    opened(data, "a.ipynb")
    assert tracemalloc.get_traced_memory()[1] < 12 * len(data)
    tracemalloc.stop()
