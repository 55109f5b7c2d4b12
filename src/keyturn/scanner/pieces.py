"""Pieces of a source, each scanned in one process.

Whatever goes wrong in one document is a notice about that document, and the rest is scanned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from keyturn.errors import KeyturnError
from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.examination import Hit, examine
from keyturn.scanner.model import Document, Notice, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.model import Source

Task: TypeAlias = tuple[Any, tuple[int, int]]
"""A batch, and which share of each of its documents."""

_BUDGET: Final = Budget()


class Yielded(msgspec.Struct):
    """What a piece held."""

    hits: list[Hit] = []
    notices: list[Notice] = []
    documents: int = 0
    bytes: int = 0


def scan_task(source: Source, task: Task, engine: Engine) -> Yielded:
    """Scan one piece of a source, or a share of it, in this process."""
    batch, share = task
    return scan_documents(source.documents(batch), engine, share)


def scan_documents(documents: Iterable[Document | Notice], engine: Engine, share: tuple[int, int] = (0, 1)) -> Yielded:
    """Scan documents, or a share of each: two that are not opened are of different shares."""
    number, of = share
    found = Yielded()
    for index, document in enumerate(documents):
        if not isinstance(document, Notice):
            scan_document(document, engine, found, ((number - index) % of, of))
        elif number == 0:
            found.notices.append(document)
    return found


def scan_document(document: Document, engine: Engine, found: Yielded, share: tuple[int, int] = (0, 1)) -> None:
    """Scan one document, or a share of its parts; a fault of ours in it becomes a notice."""
    if share[0] == 0:
        found.documents += 1
        found.bytes += len(document.data)
    try:
        for one in examine(document, engine, _BUDGET, share):
            if isinstance(one, Notice):
                found.notices.append(one)
            else:
                found.hits.append(one)
    except KeyturnError as error:
        found.notices.append(Notice(Problem.UNREADABLE, document.path, error.message))
    except Exception as error:  # noqa: BLE001 -- one document must not hide what the others hold; the run is no pass
        detail = f"it was not scanned whole: {type(error).__name__} in the scanner"
        found.notices.append(Notice(Problem.UNREADABLE, document.path, detail))
