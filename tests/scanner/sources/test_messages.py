"""What commits, tags and refs say is scanned, and reported with the commit as its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keyturn.scanner.model import Context
from keyturn.scanner.sources.git import HistorySource, PushSource, RangeSource, SeenBlobs
from keyturn.scanner.sources.messages import COMMIT_MESSAGE, REF_NAMES

if TYPE_CHECKING:
    from tests.scanner.sources.conftest import Clone, Seen

Reads = Callable[[object], "Seen"]


def test_the_message_of_a_commit_is_a_document_of_that_commit(clone: Clone, reads: Reads) -> None:
    commit = clone.commit("rotate\n\nthe old one was word-of-message", a__txt=b"a\n")
    seen = reads(HistorySource(clone.open()))
    (found,) = [one for one in seen.words if b"word-of-message" in bytes(one.data)]
    assert (found.path, found.commit, found.blob) == (COMMIT_MESSAGE, commit, commit)
    assert found.committed_at == clone.clock
    assert Context.COMMIT_MESSAGE in found.contexts
    assert bytes(found.data).decode().rstrip() == clone.git("cat-file", "-p", commit)


def test_who_made_a_commit_is_scanned_too(clone: Clone, reads: Reads) -> None:
    clone.git("commit", "-q", "--allow-empty", "-m", "m", "--author", "word-of-author <a@example.org>")
    assert any(b"word-of-author" in bytes(one.data) for one in reads(HistorySource(clone.open())).words)


def test_messages_of_tags_are_scanned_and_those_of_the_tags_they_name(clone: Clone, reads: Reads) -> None:
    clone.commit()
    clone.git("tag", "-a", "inner", "-m", "word-of-inner")
    clone.git("tag", "-a", "outer", "-m", "word-of-outer", "inner")
    clone.git("tag", "-d", "inner")
    seen = reads(HistorySource(clone.open()))
    for word in (b"word-of-inner", b"word-of-outer"):
        (found,) = [one for one in seen.words if word in bytes(one.data)]
        assert found.path == "tag message of refs/tags/outer"


def test_a_tag_that_no_ref_names_is_scanned_on_request(clone: Clone, reads: Reads) -> None:
    clone.commit()
    clone.git("tag", "-a", "gone", "-m", "word-of-gone")
    clone.git("tag", "-d", "gone")

    def words(*, unreachable: bool) -> bool:
        seen = reads(HistorySource(clone.open(), unreachable=unreachable))
        return any(b"word-of-gone" in bytes(one.data) for one in seen.words)

    assert words(unreachable=True)
    assert not words(unreachable=False)


def test_notes_are_scanned_as_the_files_that_they_are(clone: Clone, reads: Reads) -> None:
    commit = clone.commit()
    clone.git("notes", "add", "-m", "word-of-note", commit)
    (found,) = reads(HistorySource(clone.open())).holding(b"word-of-note")
    assert found.path == commit


def test_names_of_refs_are_scanned(clone: Clone, reads: Reads) -> None:
    clone.commit()
    clone.git("branch", "word-of-branch")
    clone.git("tag", "word-of-tag")
    (found,) = [one for one in reads(HistorySource(clone.open())).words if one.path == REF_NAMES]
    assert bytes(found.data).split() == [b"refs/heads/main", b"refs/heads/word-of-branch", b"refs/tags/word-of-tag"]
    assert Context.COMMIT_MESSAGE in found.contexts


def test_a_range_has_the_messages_of_its_commits_alone(clone: Clone, reads: Reads) -> None:
    clone.commit("word-before")
    clone.commit("word-within")
    said = b"".join(bytes(one.data) for one in reads(RangeSource(clone.open(), "HEAD~1..HEAD")).words)
    assert b"word-within" in said
    assert b"word-before" not in said


def test_a_push_is_judged_by_its_messages_and_names(clone: Clone, reads: Reads) -> None:
    clone.commit("word-known")
    clone.git("checkout", "-q", "--detach")
    clone.commit("word-pushed")
    clone.git("tag", "-a", "new", "-m", "word-of-tag")
    tag = clone.git("rev-parse", "new")
    clone.git("update-ref", "-d", "refs/tags/new")
    source = PushSource(clone.open(), [tag], known=["--branches"], refs=["refs/tags/word-of-name"])
    said = b"\n".join(bytes(one.data) for one in reads(source).words)
    assert b"word-known" not in said
    assert all(word in said for word in (b"word-pushed", b"word-of-tag", b"word-of-name"))


def test_a_message_that_was_scanned_is_not_scanned_again(clone: Clone, reads: Reads) -> None:
    class Store(dict[str, bytes]):
        def read(self, name: str) -> bytes | None:
            return self.get(name)

        def write(self, name: str, data: bytes) -> None:
            self[name] = data

    clone.commit("word-first")
    store = Store()
    source = HistorySource(clone.open(), seen=SeenBlobs(store, "r", "d"))
    reads(source)
    source.finished(())
    clone.commit("word-second")
    seen = reads(HistorySource(clone.open(), seen=SeenBlobs(store, "r", "d")))
    said = b"".join(bytes(one.data) for one in seen.words)
    assert b"word-second" in said
    assert b"word-first" not in said
