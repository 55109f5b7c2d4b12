"""Opens a document: the texts that are in it, however deep, in memory and within bounds.

An ordinary text is handed on as it is, and finding that out costs some microseconds.
Nothing is written to disk and no link is followed; what was not opened is a notice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyturn.scanner.contents.beginnings import HEAD, PARTLY_BEGINNINGS, SCRIPTS, SUSPECT
from keyturn.scanner.model import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.model import Document

_ESCAPE: Final = re.compile(b"\x1b")
_ZERO: Final = re.compile(b"\0")
_FIRST: Final = SUSPECT | frozenset(b"{2)")
_NAMED: Final = (".map", ".ipynb", ".lzma", ".tlz", ".log")


def open_document(document: Document, budget: Budget) -> Iterator[Document | Notice]:
    """Give the documents to scan: the document itself, or what it holds, each with the way to it in `members`.

    A big member comes in pieces that overlap; see `lead` and `tail` of a document.
    Whatever the bytes are, nothing is raised.
    """
    data = document.data
    head = data[:HEAD] if isinstance(data, bytes) else bytes(data[:HEAD])
    if (
        head
        and head[0] not in _FIRST
        and 0 not in head
        and not head.startswith(PARTLY_BEGINNINGS)
        and not document.path.endswith(_NAMED)
        and not (document.path.endswith(SCRIPTS) and _is_client_bundle(document.path, head))
        and not (b"\x1b" in data if isinstance(data, bytes) else _ESCAPE.search(data))
        # What begins as a text may go on as something else: a script with an archive at its end, text of two encodings.
        and not (b"\0" in data if isinstance(data, bytes) else _ZERO.search(data))
    ):
        yield document
        return
    if head:
        from keyturn.scanner.contents.unwrapping import Unwrapping

        yield from Unwrapping(document, budget).root()


def _is_client_bundle(path: str, head: bytes) -> bool:
    from keyturn.scanner.contents.scripts import is_client_bundle

    return is_client_bundle(path, head)
