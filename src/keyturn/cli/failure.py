"""How the command line fails: one line that says what, one that says what to do next, and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys

from keyturn.errors import (
    ConfigError,
    ForbiddenError,
    InputError,
    IntegrityError,
    KeyturnError,
    UnauthenticatedError,
    UnavailableError,
)

NO = 1
USAGE = 2
REFUSED = 3
NOT_ALLOWED = 4
UNAVAILABLE = 5

_CODES: tuple[tuple[type[KeyturnError], int], ...] = (
    (IntegrityError, NO),
    (ConfigError, USAGE),
    (InputError, USAGE),
    (UnauthenticatedError, NOT_ALLOWED),
    (ForbiddenError, NOT_ALLOWED),
    (UnavailableError, UNAVAILABLE),
)


def exit_code_of(error: KeyturnError) -> int:
    """Choose the exit code of an error (the table is in `keyturn.cli`)."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)


def print_failure(error: KeyturnError) -> None:
    """Print an error for a person: lower case, no full stop, the hint and the server's request on their own lines."""
    where = f" ({error.field})" if error.field else ""
    lines = [f"error: {error.message.rstrip('.')}{where} [{error.code}]"]
    if error.hint:
        lines.append(f"hint: {error.hint.rstrip('.')}")
    if error.request_id:
        lines.append(f"request: {error.request_id}")
    # Who cannot be told has the exit code still.
    with contextlib.suppress(OSError):
        for line in lines:
            print(_printable(line), file=sys.stderr)


def _printable(line: str) -> str:
    """Leave nothing in a line that a terminal would obey: what a server says is not ours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def flush_streams() -> bool:
    """Write out what was printed; False when the output was not taken, though somebody is there to take it.

    A stream that takes no more is given up: the interpreter would try again at its end, and end with 120 in place of
    the exit code.
    """
    taken = True
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # as it is for who was started without one
            continue
        try:
            stream.flush()
        except OSError as error:
            taken = taken and (stream is sys.stderr or isinstance(error, BrokenPipeError))
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return taken
