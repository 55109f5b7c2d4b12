"""Times and revisions as requests give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.errors import InputError, PreconditionError
from keyturn.kernel.clock import rfc3339

if TYPE_CHECKING:
    from datetime import datetime

_LAST = 253_402_300_799.0


def epoch_of(moment: datetime | None, field: str) -> float | None:
    """Return an aware time as epoch seconds; raises InputError outside the years 1970 to 9999."""
    if moment is None:
        return None
    seconds = moment.timestamp()
    if not 0 <= seconds <= _LAST:
        raise InputError("expected a time within the years 1970 to 9999 in UTC", field=field)
    return seconds


def shown(epoch: float | None) -> str | None:
    """Write a time for a response."""
    return None if epoch is None else rfc3339(epoch)


def require_revision(if_match: int | None, revision: int) -> None:
    """Raise PreconditionError unless `If-Match`, where it is given, names the present revision."""
    if if_match is not None and if_match != revision:
        raise PreconditionError(
            f"expected revision {if_match}, found {revision}",
            field="If-Match",
            hint="read it again and repeat the change",
        )
