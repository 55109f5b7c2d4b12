"""Which source `keyturn scan` reads, by its options."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.config import inherited_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.cli.scan import ScanOptions
    from keyturn.scanner.cache import Cache
    from keyturn.scanner.examination import Hit
    from keyturn.scanner.model import Notice, Source
    from keyturn.scanner.ruleset.model import Ruleset
    from keyturn.scanner.sources.history import HistorySource
    from keyturn.scanner.sources.repository import Repository


@dataclass(frozen=True, slots=True)
class Chosen:
    """A source; `whole` when it is all there is, `scanned` is told what was hit once it was scanned to its end."""

    source: Source
    whole: bool = False
    scanned: Callable[[list[Hit], list[Notice]], None] | None = None


def choose_source(options: ScanOptions, cache: Cache | None, ruleset: Ruleset) -> Chosen:
    """Return the source that the options name; raises InputError when there is none."""
    if options.staged or options.worktree or options.commits is not None or options.history:
        return _of_repository(options, cache, ruleset)
    if options.paths == ("-",):
        from keyturn.scanner.sources.stream import StreamSource

        return Chosen(StreamSource(sys.stdin.buffer, "stdin"))
    from keyturn.scanner.sources.files import FolderSource

    source = FolderSource(
        options.paths or (".",),
        follow_links=options.follow_links,
        exclude=options.exclude,
        respect_gitignore=options.gitignore,
    )
    return Chosen(source, whole=len(options.paths) <= 1)


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
    from keyturn.scanner.sources.worktree import WorkTreeSource

    return Chosen(WorkTreeSource(repository), whole=True)


def _history(repository: Repository, options: ScanOptions, cache: Cache | None, ruleset: Ruleset) -> Chosen:
    from keyturn.scanner.engine.open import ruleset_digest
    from keyturn.scanner.sources.history import HistorySource
    from keyturn.scanner.sources.seen import SeenBlobs
    from keyturn.scanner.sources.trimming import surroundings

    seen = None if cache is None else SeenBlobs(cache, repository.common, ruleset_digest(ruleset))
    source = HistorySource(
        repository,
        options.refs,
        stash=options.stash,
        unreachable=options.unreachable,
        seen=seen,
        context=surroundings(ruleset),
    )
    whole = not options.refs
    return Chosen(source, whole=whole, scanned=_remember(source))


def _remember(source: HistorySource) -> Callable[[list[Hit], list[Notice]], None]:
    def remember(hits: list[Hit], notices: list[Notice]) -> None:
        if not notices:
            source.finished({hit.place.blob for hit in hits})

    return remember
