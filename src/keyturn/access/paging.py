"""Lists in pages: opaque cursors, and only what the caller may read."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Protocol, TypeVar

from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Identified(Protocol):
    """Anything listed by its id."""

    @property
    def id(self) -> str:
        """The id that orders the list."""
        ...


R = TypeVar("R", bound=Identified)

_ID = re.compile(r"[A-Za-z0-9_~.-]{1,128}")


def encode_cursor(last_id: str) -> str:
    """Name the place after an id, opaquely."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str:
    """Return the id that a list goes on after, "" for its beginning; raises InputError for what is no cursor."""
    if cursor is None:
        return ""
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        decoded = ""
    if _ID.fullmatch(decoded) is None:
        raise InputError("the cursor is not one that a list returned", field="cursor", hint="start from the first page")
    return decoded


def page(
    fetch: Callable[[str, int], Sequence[R]], visible: Callable[[R], bool], cursor: str | None, limit: int
) -> tuple[list[R], str | None]:
    """Collect up to `limit` visible rows after a cursor, and the cursor of the next page if there is more to see.

    `fetch(after, n)` returns the next rows by id.  What is invisible leaves no trace in the answer.
    """
    after = decode_cursor(cursor)
    found: list[R] = []
    while True:
        rows = fetch(after, limit + 1)
        for row in rows:
            if not visible(row):
                continue
            if len(found) == limit:
                return found, encode_cursor(found[-1].id)
            found.append(row)
        if len(rows) <= limit:
            return found, None
        after = rows[-1].id
