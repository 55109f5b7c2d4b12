"""Which source `keyturn scan` reads, by its options."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast, final

import msgspec

from keyturn import scanner
from keyturn.config import inherited_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from keyturn.cli.scan_options import ScanOptions
    from keyturn.scanner.cache import Cache
    from keyturn.scanner.examination import Hit
    from keyturn.scanner.model import Batch, Document, Notice, Source
    from keyturn.scanner.ruleset.model import Ruleset
    from keyturn.scanner.sources.history import HistorySource
    from keyturn.scanner.sources.repository import Repository


_STEP: Final = 1 << 20


class Chosen(msgspec.Struct, frozen=True):
    """A source; `whole` when it is all there is, `scanned` is told what was hit once it was scanned to its end.

    `jobs` is 1 for a source that one process alone can read.
    """

    source: Source
    jobs: int | None = None
    whole: bool = False
    scanned: Callable[[list[Hit], list[Notice]], None] | None = None


def choose_source(options: ScanOptions, cache: Cache | None, ruleset: Ruleset) -> Chosen:
    """Return the source that the options name; raises InputError when there is none."""
    if options.staged or options.worktree or options.commits is not None or options.history:
        return _of_repository(options, cache, ruleset)
    if options.paths == ("-",):
        return _standard_input()
    from keyturn.scanner.sources.files import FolderSource

    source = FolderSource(options.paths or (".",), follow_links=options.follow_links, exclude=options.exclude)
    return Chosen(source, whole=len(options.paths) <= 1)


@final
class HeldSource:
    """Documents that were read already, so that they can be read again, and in other processes."""

    def __init__(self, documents: Sequence[Document | Notice]) -> None:
        self._documents = documents

    def batches(self) -> Iterator[Batch | Notice]:
        """Name all of them."""
        yield ("held",)

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:  # noqa: ARG002 -- there is one
        """Return them."""
        yield from self._documents


@final
class _Interruptible:
    """A stream whose reading an interrupt ends at once: a buffered one would go on to the end of what was asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read = getattr(stream, "raw", stream).read

    def read(self, size: int) -> bytes:
        """Read so many bytes, or what there is to the end."""
        parts: list[bytes] = []
        while size > 0 and (part := self._read(min(size, _STEP))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _standard_input() -> Chosen:
    from keyturn.scanner.sources.stream import StreamSource

    source = StreamSource(cast("BinaryIO", _Interruptible(sys.stdin.buffer)), "stdin")
    (name,) = source.batches()
    documents = source.documents(name) if isinstance(name, tuple) else iter([name])
    first = list(itertools.islice(documents, 2))
    # Of what comes in pieces only a few are held at a time, by this process.
    if len(first) < 2:
        return Chosen(HeldSource(first))
    return Chosen(_Pieces(itertools.chain(first, documents)), jobs=1)


@final
class _Pieces:
    """Documents that can be read once, by one process."""

    def __init__(self, documents: Iterator[Document | Notice]) -> None:
        self._documents = documents

    def batches(self) -> Iterator[Batch | Notice]:
        """Name all of them."""
        yield ("pieces",)

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:  # noqa: ARG002 -- there is one
        """Return them, once."""
        return self._documents


def _of_repository(options: ScanOptions, cache: Cache | None, ruleset: Ruleset) -> Chosen:
    from keyturn.scanner.sources.repository import open_repository

    repository = open_repository(options.paths[0] if options.paths else ".", inherited_environment())
    if options.history:
        return _history(repository, options, cache, ruleset)
    if options.commits is not None:
        from keyturn.scanner.sources.history import RangeSource

        return Chosen(RangeSource(repository, options.commits))
    if options.staged:
        from keyturn.scanner.sources.index import StagedSource

        return Chosen(StagedSource(repository))
    from keyturn.scanner.sources.index import WorkTreeSource

    return Chosen(WorkTreeSource(repository), whole=True)


def _history(repository: Repository, options: ScanOptions, cache: Cache | None, ruleset: Ruleset) -> Chosen:
    from keyturn.scanner.engine.open import ruleset_digest
    from keyturn.scanner.sources.history import HistorySource
    from keyturn.scanner.sources.seen import SeenBlobs
    from keyturn.scanner.sources.trimming import reaching_far, surroundings

    digest = " ".join([ruleset_digest(ruleset), *_scanner()])
    seen = None if cache is None else SeenBlobs(cache, repository.common, digest)
    # Those of others may ask for a word anywhere in the document.
    own = not options.rules and not options.held
    context = surroundings(ruleset)
    source = HistorySource(
        repository,
        options.refs,
        stash=options.stash,
        unreachable=options.unreachable,
        seen=seen,
        context=context,
        far=reaching_far(ruleset) if own and context else None,
    )
    whole = not options.refs
    return Chosen(source, whole=whole, scanned=_remember(source))


def _scanner() -> Iterator[str]:
    """Name the scanner itself: what held nothing may hold something for the next version, which opens more."""
    folder = Path(scanner.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        about = path.stat()
        yield f"{path.relative_to(folder)} {about.st_size} {about.st_mtime_ns}"


def _remember(source: HistorySource) -> Callable[[list[Hit], list[Notice]], None]:
    from keyturn.scanner.running import ERRORS

    def remember(hits: list[Hit], notices: list[Notice]) -> None:
        if not any(one.problem in ERRORS and not one.path for one in notices):
            source.finished({hit.place.blob for hit in hits}, {one.path for one in notices})

    return remember
