"""Lists in pages: opaque cursors, only what the caller may read, and a bound on what one page costs.

A page reads no more than about `EXAMINED_MAX` rows, however few of them the caller may see.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from sqlalchemy import bindparam, select

from keyturn.access import rules
from keyturn.errors import InputError
from keyturn.kernel.envelope import EnvelopeError, open_under_phrase, seal_under_phrase
from keyturn.storage.keyring import OPEN
from keyturn.storage.schema import workspace_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.access.door import Operation
    from keyturn.wire.actions import Action

EXAMINED_MAX: Final = 1000
FETCHED: Final = 200
SEALED: Final = "."
"""Begins the cursors that name a place the caller may not know of."""

_WRAPPED = (
    select(workspace_key.c.wrapped)
    .where(workspace_key.c.workspace == bindparam("of"), workspace_key.c.state == OPEN)
    .order_by(workspace_key.c.created_at.desc(), workspace_key.c.id.desc())
    .limit(1)
)


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
        raise _bad_cursor()
    return decoded


def page(
    op: Operation,
    fetch: Callable[[str, int], Sequence[R]],
    visible: Callable[[R], bool],
    cursor: str | None,
    limit: int,
    *,
    reading: Action | None = None,
) -> tuple[list[R], str | None]:
    """Collect up to `limit` visible rows after a cursor, and the cursor of the next page if there may be more to see.

    `fetch(after, n)` returns the next rows by id.  What is invisible leaves no trace in the answer, but that a page
    may be short, or empty, and have a next one: past `EXAMINED_MAX` rows the caller asks again, from a sealed place.
    Who holds `reading` nowhere costs no query.
    """
    after = place_after(op, cursor)
    found: list[R] = []
    if reading is not None and not rules.holds_somewhere(op.caller, reading, op.now):
        return found, None
    examined, count = 0, limit + 1
    while True:
        rows = fetch(after, count)
        for row in rows:
            if not visible(row):
                continue
            if len(found) == limit:
                return found, encode_cursor(found[-1].id)
            found.append(row)
        if len(rows) < count:
            return found, None
        after = rows[-1].id
        examined, count = examined + len(rows), FETCHED
        if examined >= EXAMINED_MAX:
            return found, sealed_cursor(op, after)


def place_after(op: Operation, cursor: str | None) -> str:
    """Return the place that a cursor names, sealed or not; raises InputError for what is no cursor of this caller."""
    if cursor is None or not cursor.startswith(SEALED):
        return decode_cursor(cursor)
    try:
        blob = base64.b64decode(cursor[1:] + "=" * (-len(cursor[1:]) % 4), altchars=b"-_", validate=True)
        return open_under_phrase(_phrase(op), _context(op), blob).decode()
    except (binascii.Error, ValueError, EnvelopeError):
        raise _bad_cursor() from None


def sealed_cursor(op: Operation, after: str) -> str:
    """Name a place that the caller may not know of: opaque to it, and good for no other caller."""
    blob = seal_under_phrase(_phrase(op), _context(op), after.encode())
    return SEALED + base64.urlsafe_b64encode(blob).decode().rstrip("=")


def _phrase(op: Operation) -> bytes:
    # Bytes that every server of the workspace has and no caller is ever shown: its newest key, as it is wrapped.
    # A rotation or rewrap in between costs whoever is in the middle of a list a fresh start.
    return op.connection.execute(_WRAPPED, {"of": op.workspace}).scalar_one()


def _context(op: Operation) -> bytes:
    return f"keyturn list cursor v1\0{op.workspace}\0{op.caller.principal}".encode()


def _bad_cursor() -> InputError:
    return InputError("the cursor is not one that a list returned", field="cursor", hint="start from the first page")
