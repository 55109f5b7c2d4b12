"""What a history says in words: messages of commits and of tags, who made them, and the names of refs.

A commit and a tag are scanned as git stores them, so a line of a finding is one of `git cat-file -p`.  Notes are files
of a history of their own, and scanned as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.model import Context, Document
from keyturn.scanner.sources.blobs import BLOB_BYTES_MAX, Blob
from keyturn.scanner.sources.objects import ObjectReader, every_object, sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from keyturn.scanner.sources.commits import Commits
    from keyturn.scanner.sources.repository import Repository

COMMIT_MESSAGE: Final = "commit message"
"""What the message of a commit is shown as; which commit it is, the place says."""
TAG_MESSAGE: Final = "tag message of "
REF_NAMES: Final = "ref names"
_CONTEXTS: Final = f"{Context.HISTORY.value},{Context.COMMIT_MESSAGE.value}"
_TAG_BYTES_MAX: Final = 1 << 24


def messages(repository: Repository, commits: Commits, *, stray: bool) -> Iterator[Blob]:
    """Name the objects that hold messages: commits, and the tags that refs name; `stray` adds all other tags."""
    for name in commits.names:
        yield Blob(name, COMMIT_MESSAGE, name, commits.times.get(name, ""), contexts=_CONTEXTS)
    tags = dict(_tags(repository, commits.tips))
    if stray:
        for name, kind, _ in every_object(repository):
            if kind == "tag":
                tags.setdefault(name, name)
    for name, ref in tags.items():
        yield Blob(name, f"{TAG_MESSAGE}{ref}", contexts=_CONTEXTS)


def names_batch(names: Iterable[str]) -> tuple[str, ...]:
    """Return the batch that stands for the names of refs; empty when there are none."""
    found = sorted(set(names))
    return (REF_NAMES, *found) if found else ()


def names_document(batch: Sequence[object]) -> Document | None:
    """Return the document of a batch of names, None for any other batch."""
    if not batch or batch[0] != REF_NAMES:
        return None
    text = "\n".join(map(str, batch[1:]))
    contexts = frozenset({Context.HISTORY, Context.COMMIT_MESSAGE})
    return Document(text.encode("utf-8", "surrogateescape"), REF_NAMES, contexts=contexts)


def _tags(repository: Repository, tips: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the tags that refs name, and those that they name in turn, each with its ref."""
    kinds = sizes(repository, list(tips))
    waiting = {name: ref for name, ref in tips.items() if kinds.get(name, ("", 0))[0] == "tag"}
    if not waiting:
        return
    reader = ObjectReader(repository, bytes_max=min(_TAG_BYTES_MAX, BLOB_BYTES_MAX))
    seen: set[str] = set()
    try:
        while waiting:
            seen |= waiting.keys()
            yield from waiting.items()
            inner: dict[str, str] = {}
            for read in reader.read(list(waiting)):
                named = _named_tag(read.data or b"")
                if named and named not in seen:
                    inner[named] = waiting[read.name]
            waiting = inner
    finally:
        reader.close()


def _named_tag(tag: bytes) -> str:
    """Return the tag that a tag names, nothing when it names something else."""
    lines = tag.split(b"\n", 2)
    if len(lines) < 2 or lines[1] != b"type tag" or not lines[0].startswith(b"object "):
        return ""
    return lines[0][7:].decode("ascii", "replace")
