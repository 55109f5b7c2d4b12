"""Durations as Vault's clients write them: `300`, `"300"`, `"5m"`, `"1h30m"`; pure."""

from __future__ import annotations

import re
from typing import Final

from keyturn.errors import InputError

SECONDS_MAX: Final = 315_360_000

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h|d)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")


def seconds(value: object, field: str) -> int | None:
    """Return a duration in whole seconds, None when none is given (null or an empty text); raises InputError."""
    if value is None or value == "":
        return None
    found: float | None = None
    if isinstance(value, bool):
        found = None
    elif isinstance(value, int | float):
        found = value
    elif isinstance(value, str) and len(value) <= 64:
        text = value.strip()
        if re.fullmatch(r"[0-9]{1,12}", text):
            found = int(text)
        elif _WHOLE.fullmatch(text):
            found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if found is None or not 0 <= found <= SECONDS_MAX:
        raise InputError(
            f"{field}: expected a duration of at most ten years", field=field, hint='for example 300, "5m" or "1h30m"'
        )
    return int(found)


def shown(amount: int | None) -> str:
    """Return seconds as Go prints a duration: `0s`, `90s` as `1m30s`, `1h0m0s`."""
    minutes, rest = divmod(amount or 0, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
