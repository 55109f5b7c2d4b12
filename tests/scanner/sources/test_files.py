from __future__ import annotations

import io
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from keyturn.errors import InputError
from keyturn.scanner.model import Problem
from keyturn.scanner.sources import reading
from keyturn.scanner.sources.files import FolderSource
from keyturn.scanner.sources.stream import StreamSource

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Seen, Source

    Reads = Callable[[Source], Seen]

SECRET = b"-".join([b"plan", b"ted", b"secret"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "inner" / "deep").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"a")
    (made / "inner" / "b.txt").write_bytes(b"b" + SECRET)
    (made / "inner" / "deep" / "c.log").write_bytes(b"c")
    (made / ".git").mkdir()
    (made / ".git" / "config").write_bytes(SECRET)
    return made


def test_every_regular_file_is_read_and_git_directories_are_not(folder: Path, reads: Reads) -> None:
    seen = reads(FolderSource([str(folder)]))
    assert seen.paths() == {"a.txt", "inner/b.txt", "inner/deep/c.log"}
    assert not seen.notices
    assert len(seen.holding(SECRET)) == 1


def test_several_paths_are_read_once_each_under_the_names_given(
    folder: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    seen = reads(FolderSource(["folder/inner", "./folder", "folder/a.txt", "folder/inner/deep/"]))
    assert sorted(one.path for one in seen.documents) == [
        "folder/a.txt",
        "folder/inner/b.txt",
        "folder/inner/deep/c.log",
    ]
    assert reads(FolderSource(["folder/a.txt"])).paths() == {"folder/a.txt"}
    assert reads(FolderSource(["."], exclude=["b*"])).paths() == {"folder/a.txt", "folder/inner/deep/c.log"}


def test_hard_links_are_read_under_each_name(folder: Path, reads: Reads) -> None:
    os.link(folder / "a.txt", folder / "again.txt")
    assert {"a.txt", "again.txt"} <= reads(FolderSource([str(folder)])).paths()


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("inner", {"a.txt"}),
        ("inner/", {"a.txt"}),
        ("*.txt", {"inner/deep/c.log"}),
        ("inner/deep", {"a.txt", "inner/b.txt"}),
        ("deep/c.log", {"a.txt", "inner/b.txt", "inner/deep/c.log"}),
        ("*/c.log", {"a.txt", "inner/b.txt"}),
        ("nner", {"a.txt", "inner/b.txt", "inner/deep/c.log"}),
        ("[", {"a.txt", "inner/b.txt", "inner/deep/c.log"}),
    ],
)
def test_excluded_is_what_a_pattern_names(folder: Path, reads: Reads, pattern: str, left: set[str]) -> None:
    assert reads(FolderSource([str(folder)], exclude=[pattern])).paths() == left


def test_links_are_noticed_and_not_followed(folder: Path, reads: Reads) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(SECRET)
    (folder / "link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "dangling").symlink_to("nowhere")
    seen = reads(FolderSource([str(folder)]))
    assert seen.paths() == {"a.txt", "inner/b.txt", "inner/deep/c.log"}
    assert {(one.problem, one.path) for one in seen.notices} == {
        (Problem.SKIPPED, "link"),
        (Problem.SKIPPED, "loop"),
        (Problem.SKIPPED, "dangling"),
    }


def test_links_that_are_followed_end_where_they_began(folder: Path, reads: Reads) -> None:
    (folder.parent / "outside").write_bytes(SECRET)
    (folder / "link").symlink_to(folder.parent / "outside")
    (folder / "loop").symlink_to(folder)
    (folder / "inner" / "up").symlink_to("..")
    (folder / "dangling").symlink_to("nowhere")
    seen = reads(FolderSource([str(folder)], follow_links=True))
    assert sorted(one.path for one in seen.documents) == ["a.txt", "inner/b.txt", "inner/deep/c.log", "link"]
    assert [(one.problem, one.path) for one in seen.notices] == [(Problem.UNREADABLE, "dangling")]


def test_fifo_socket_and_device_are_noticed_and_nothing_waits(tmp_path: Path, reads: Reads) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        seen = reads(FolderSource([str(tmp_path)]))
    assert not seen.documents
    assert [one.problem for one in seen.notices] == [Problem.SKIPPED] * 2


def test_what_was_asked_for_by_its_name_is_read_or_an_error(folder: Path, reads: Reads) -> None:
    """A scan of a link or a FIFO alone scanned nothing, and passed."""
    (folder.parent / "link").symlink_to(folder / "a.txt")
    os.mkfifo(folder.parent / "fifo")
    (folder.parent / "dangling").symlink_to("nowhere")
    assert len(reads(FolderSource([str(folder.parent / "link")])).documents) == 1
    for name in ("fifo", "dangling", "/dev/null"):
        assert reads(FolderSource([str(folder.parent / name)])).problems() == {Problem.UNREADABLE}


def test_file_that_the_system_makes_up_is_read_whatever_size_it_tells(reads: Reads) -> None:
    (document,) = reads(FolderSource(["/proc/self/environ"])).documents
    assert b"PATH=" in bytes(document.data)


def test_link_to_itself_is_an_error_and_hides_nothing(folder: Path, reads: Reads) -> None:
    (folder / "itself").symlink_to("itself")
    seen = reads(FolderSource([str(folder)], follow_links=True))
    assert seen.paths() == {"a.txt", "inner/b.txt", "inner/deep/c.log"}
    assert [one.path for one in seen.notices] == ["itself"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_and_folder_are_errors(folder: Path, reads: Reads) -> None:
    (folder / "a.txt").chmod(0)
    (folder / "inner").chmod(0)
    seen = reads(FolderSource([str(folder)]))
    (folder / "inner").chmod(0o700)
    assert {(one.problem, one.path) for one in seen.notices} == {
        (Problem.UNREADABLE, "a.txt"),
        (Problem.UNREADABLE, "inner"),
    }


def test_file_that_is_gone_when_it_is_read_is_an_error(folder: Path) -> None:
    source = FolderSource([str(folder)])
    (batch,) = source.batches()
    (folder / "a.txt").unlink()
    given = list(source.documents(batch))  # type: ignore[arg-type] # no notice
    assert [getattr(one, "problem", None) for one in given] == [Problem.UNREADABLE, None, None]


def test_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list(FolderSource([str(tmp_path / "nowhere")]).batches())


def test_paths_that_are_no_text_are_read(tmp_path: Path, reads: Reads) -> None:
    for name in (b"caf\xe9", b"new\nline", b"\x1b[2J", "ключ".encode()):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(SECRET)
    assert reads(FolderSource([str(tmp_path)])).paths() == {"caf\\xe9", "new\\x0aline", "\\x1b[2J", "ключ"}


def test_bigger_files_are_left_out_with_a_notice_when_asked(folder: Path, reads: Reads) -> None:
    (folder / "big").write_bytes(b"x" * 1001)
    seen = reads(FolderSource([str(folder)], bytes_max=1000))
    assert [(one.problem, one.path) for one in seen.notices] == [(Problem.BOUND, "big")]
    assert "big" not in seen.paths()


def test_sparse_file_of_ten_gigabytes_is_read_where_it_has_data(tmp_path: Path, reads: Reads) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"first\nline\n")
        file.seek(5 << 30)
        file.write(b"middle\n" + SECRET)
        file.truncate(10 << 30)
    if path.stat().st_blocks * 512 > 1 << 30:
        pytest.skip("this file system has no holes")
    seen = reads(FolderSource([str(tmp_path)]))
    assert sum(len(one.data) for one in seen.documents) < 1 << 20
    (document,) = seen.holding(SECRET)
    assert document.first_line == 3


def test_long_file_is_mapped(tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ_BYTES_MAX", 1000)
    (tmp_path / "long").write_bytes(b"x" * 5000 + SECRET)
    (document,) = reads(FolderSource([str(tmp_path)])).documents
    assert isinstance(document.data, memoryview)
    assert bytes(document.data).endswith(SECRET)


@pytest.mark.slow
def test_hundred_thousand_files_are_read(tmp_path: Path, reads: Reads) -> None:
    for number in range(100_000):
        if number % 1000 == 0:
            (tmp_path / str(number)).mkdir()
        descriptor = os.open(f"{tmp_path}/{number - number % 1000}/{number}", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"%d" % number)
        os.close(descriptor)
    assert len(reads(FolderSource([str(tmp_path)])).documents) == 100_000


def test_batches_can_be_read_by_another_process(folder: Path) -> None:
    import pickle

    source = FolderSource([str(folder)])
    for batch in source.batches():
        assert pickle.loads(pickle.dumps(batch)) == batch  # noqa: S301 -- our own


def pieces(data: bytes, piece: int, around: int) -> Iterator[tuple[bytes, int, int, int]]:
    source = StreamSource(io.BytesIO(data), whole_bytes_max=10, piece_bytes=piece, surroundings=around)
    for batch in source.batches():
        for one in source.documents(batch):  # type: ignore[arg-type] # no notice
            yield bytes(one.data), one.lead, one.tail, one.first_line  # type: ignore[union-attr] # no notice


def test_stream_is_one_document_under_its_name(reads: Reads) -> None:
    (document,) = reads(StreamSource(io.BytesIO(SECRET), "build.log")).documents
    assert (document.data, document.path) == (SECRET, "build.log")
    assert reads(StreamSource(io.BytesIO(b""))).documents[0].data == b""


@pytest.mark.parametrize("size", [11, 64, 65, 99, 100, 101, 163, 164, 165, 500])
@pytest.mark.parametrize(("piece", "around"), [(64, 16), (16, 64), (50, 50)])
def test_pieces_of_a_long_stream_are_all_of_it_once(size: int, piece: int, around: int) -> None:
    data = bytes(10 if number % 7 == 3 else 97 + number % 26 for number in range(size))
    own = b""
    for shown, lead, tail, line in pieces(data, piece, around):
        begun = len(own) - lead
        assert data[begun : begun + len(shown)] == shown
        assert line == data[:begun].count(b"\n") + 1
        assert lead == min(len(own), around)
        own += shown[lead : len(shown) - tail]
        assert tail == min(around, size - len(own))
    assert own == data


def test_stream_that_is_no_text_is_read_to_a_bound_and_noticed(reads: Reads) -> None:
    source = StreamSource(io.BytesIO(b"\0" * 100), whole_bytes_max=10, binary_bytes_max=50)
    seen = reads(source)
    assert [len(one.data) for one in seen.documents] == [50]
    assert seen.problems() == {Problem.BOUND}
    assert not reads(StreamSource(io.BytesIO(b"\0" * 50), whole_bytes_max=10, binary_bytes_max=50)).notices
