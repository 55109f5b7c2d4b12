"""Time that a local step of the system clock cannot move.

    now  =  boottime  +  offset
            |            `-- learned from the database (an SDK: from its server) when freshness is confirmed
            `-- CLOCK_BOOTTIME: seconds since boot, counting suspend, stepped by nobody

Freshness and deadlines inside one process are compared in boottime.
Whatever leaves the process is epoch seconds from `Clock.now`, written as RFC 3339 in UTC with milliseconds.

    2026-01-02T03:04:05.678Z
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

JUMP_ALARM_SECONDS: Final = 2.0

# macOS has no CLOCK_BOOTTIME, but its CLOCK_MONOTONIC counts sleep.
_BOOT_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", -1))

_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))",
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = -62_135_596_800_000
_LAST_MS: Final = 253_402_300_799_999
_MINUTES_MAX: Final = 59
_HOURS_MAX: Final = 23


def boottime() -> float:
    """Return seconds since boot, suspend included, from a clock that nobody can step."""
    if _BOOT_CLOCK < 0:
        return time.monotonic()
    return time.clock_gettime(_BOOT_CLOCK)


def wall() -> float:
    """Return the system's wall clock in epoch seconds.

    Only for the "database time" of SQLite and for the first offset at start-up.
    """
    return time.time()


class Clock:
    """The time of one process: boottime plus an offset that only `learn` changes.

    `offset` None takes the system's wall clock once, now.
    `boottime` is any callable giving seconds that never go back, so a test can hand in a clock it moves by hand.
    """

    __slots__ = ("_boottime", "_offset")

    max_jump: Final = JUMP_ALARM_SECONDS

    def __init__(self, offset: float | None = None, *, boottime: Callable[[], float] = boottime) -> None:
        """Start with a known offset, or with the one the wall clock suggests."""
        self._boottime = boottime
        self._offset = wall() - boottime() if offset is None else offset

    def boottime(self) -> float:
        """Return seconds since boot; compare deadlines with these."""
        return self._boottime()

    def now(self) -> float:
        """Return epoch seconds, UTC."""
        return self._boottime() + self._offset

    def at(self, boottime: float) -> float:
        """Return the epoch seconds, UTC, of a moment that `boottime` gave."""
        return boottime + self._offset

    def now_utc(self) -> datetime:
        """Return `now` as an aware datetime in UTC."""
        return _EPOCH + timedelta(seconds=self.now())

    def learn(self, database_time: float, sent: float, received: float) -> float:
        """Adopt the offset that a database answer implies, and return how far time jumped, in seconds.

        `sent` and `received` are boottimes around the question; the answer is taken to be from halfway between,
        so the offset is wrong by at most half the round trip.
        A return above `max_jump` deserves an alarm.
        Raises ValueError, and keeps the old offset, when a number is not finite or `received` is before `sent`.
        """
        if not (math.isfinite(database_time) and math.isfinite(sent) and math.isfinite(received)):
            raise ValueError("expected finite times, found one that is not")
        if received < sent:
            raise ValueError(f"expected the answer after the question, found it {sent - received:.6f} s before")
        offset = database_time - (sent + (received - sent) / 2)
        jump = abs(offset - self._offset)
        self._offset = offset
        return jump


@lru_cache(maxsize=1024)
def rfc3339(epoch: float) -> str:
    """Write epoch seconds as RFC 3339 in UTC, rounded to the millisecond.

    Raises ValueError outside the years 1 to 9999.
    """
    if not math.isfinite(epoch):
        raise ValueError("expected a finite time, found one that is not")
    milliseconds = round(epoch * 1000)
    if not _FIRST_MS <= milliseconds <= _LAST_MS:
        raise ValueError("expected a time within the years 1 to 9999")
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_rfc3339(text: str) -> float:
    """Read RFC 3339 text, with `Z` or a numeric offset, as epoch seconds.

    Raises ValueError for anything else: a date alone, a time without offset, a leap second, lower-case letters.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("expected a time like 2026-01-02T03:04:05Z or 2026-01-02T03:04:05.678+01:00")
    *fields, fraction, sign, hours, minutes = found.groups()
    year, month, day, hour, minute, second = map(int, fields)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    since = moment - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    if sign is not None:
        if int(hours) > _HOURS_MAX or int(minutes) > _MINUTES_MAX:
            raise ValueError(f"expected an offset up to 23:59, found {hours}:{minutes}")
        away = int(hours) * 3600 + int(minutes) * 60
        seconds += away if sign == "-" else -away
    if not _FIRST_MS <= seconds * 1000 <= _LAST_MS:
        raise ValueError("expected a time within the years 1 to 9999 in UTC")
    if fraction is None:
        return float(seconds)
    # One division of whole numbers: a sum of two floats would round twice.
    scale: int = 10 ** len(fraction)
    return (seconds * scale + int(fraction)) / scale
