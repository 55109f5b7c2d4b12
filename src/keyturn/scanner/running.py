"""A source, scanned: spread over processes when it is big, judged, and counted.

What is small stays in this process, where a hook is done before another one would have started.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import InputError
from keyturn.kernel.clock import boottime
from keyturn.scanner.judging import judge
from keyturn.scanner.model import Document, Notice, Problem, Report
from keyturn.scanner.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.examination import Hit
    from keyturn.scanner.judging import Judges
    from keyturn.scanner.model import Batch, Source
    from keyturn.scanner.pieces import Task, Yielded

JOBS_MAX: Final = 256
_SMALL_BATCHES: Final = 2
_SMALL_BYTES: Final = 4 << 20
"""What this process scans sooner than others have started."""

ERRORS: Final = frozenset({Problem.UNREADABLE, Problem.CORRUPT})
"""What keeps a run from being a pass."""
_STRICT_ERRORS: Final = ERRORS | {Problem.BOUND, Problem.MISSING, Problem.CLOSED}


class ScanSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to scan: `jobs` None is one process for each processor.

    `whole` says that the source is all there is, so that what a baseline names and was not found is stale.
    `progress` None shows it on a terminal.
    """

    judges: Judges
    jobs: int | None = None
    whole: bool = False
    progress: bool | None = None
    scanned: Callable[[list[Hit], list[Notice]], None] | None = None
    """Told what was hit before it is judged, once all of the source was scanned."""

    def __post_init__(self) -> None:
        """Refuse numbers of processes that make no sense."""
        if self.jobs is not None and not 1 <= self.jobs <= JOBS_MAX:
            raise InputError(f"expected 1 to {JOBS_MAX} jobs, found {self.jobs}", field="jobs")


def scan(source: Source, engine: Engine, settings: ScanSettings) -> Report:
    """Scan everything of a source by the rules of an engine, and judge what was found.

    Raises:
        KeyturnError: the source cannot be read, or a process was ended: nothing was decided.

    """
    begin = boottime()
    report = Report()
    hits: list[Hit] = []
    with Progress(shown=settings.progress) as progress:
        for found in _yielded(source, engine, settings.jobs or processors(), report.notices, progress):
            hits += found.hits
            report.notices += found.notices
            report.documents += found.documents
            report.bytes += found.bytes
            progress.add(found.documents, found.bytes, len(found.hits))
    report.notices.sort(key=lambda one: (one.path, one.problem, one.detail))
    if settings.scanned is not None:
        settings.scanned(hits, report.notices)
    report.findings, report.ignored = judge(hits, settings.judges)
    if settings.whole and settings.judges.baseline is not None:
        from keyturn.scanner.baseline import stale_entries

        report.stale = stale_entries(settings.judges.baseline, [*report.findings, *report.ignored])
    report.seconds = boottime() - begin
    return report


def errors_of(report: Report, *, strict: bool = False) -> list[Notice]:
    """Return what keeps a run from being a pass; `strict` counts bounds, and what is missing or closed, among it."""
    kinds = _STRICT_ERRORS if strict else ERRORS
    return [one for one in report.notices if one.problem in kinds]


def processors() -> int:
    """Return how many processors this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


def _yielded(source: Source, engine: Engine, jobs: int, notices: list[Notice], progress: Progress) -> Iterator[Yielded]:
    from keyturn.scanner.pieces import scan_documents, scan_task

    batches = _batches(source, notices)
    first = list(itertools.islice(batches, _SMALL_BATCHES + 1))
    if jobs == 1:
        tasks: Iterator[Task] = ((batch, (0, 1)) for batch in itertools.chain(first, batches))
        yield from (scan_task(source, task, engine) for task in tasks)
    elif len(first) > _SMALL_BATCHES:
        yield from _spread(source, engine, jobs, itertools.chain(first, batches), progress, of=1)
    elif (documents := _small_documents(source, first)) is not None:
        yield scan_documents(documents, engine)
    else:
        yield from _spread(source, engine, jobs, iter(first), progress, of=jobs)


def _spread(
    source: Source, engine: Engine, jobs: int, batches: Iterator[Batch], progress: Progress, *, of: int
) -> Iterator[Yielded]:
    """Yield what other processes find; with `of` above 1 each of them takes its share of every document."""
    from keyturn.scanner.workers import Workers

    workers = Workers(source, engine, jobs)
    try:
        tasks = ((batch, (number, of)) for batch in batches for number in range(of))
        yield from workers.run(tasks, progress.tick)
    finally:
        workers.close()


def _batches(source: Source, notices: list[Notice]) -> Iterator[Batch]:
    for one in source.batches():
        if isinstance(one, Notice):
            notices.append(one)
        else:
            yield one


def _small_documents(source: Source, batches: list[Batch]) -> list[Document | Notice] | None:
    """Return all documents when scanning them takes less than starting processes would; None when not."""
    documents: list[Document | Notice] = []
    read = 0
    for batch in batches:
        for one in source.documents(batch):
            documents.append(one)
            read += len(one.data) if isinstance(one, Document) else 0
            if read > _SMALL_BYTES:
                return None
    return documents
