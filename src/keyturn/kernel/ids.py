"""Public ids: sortable by the time they were made, unguessable, never derived from a secret.

    key_0VPfh4Qa7mKx2LwZ9Yb3Rt
    |   |       `-- 14 base62 characters from the system CSPRNG (83 bits)
    |   `-- 8 base62 characters: milliseconds since 1970, most significant first (until the year 8888)
    `-- the kind of thing, and `_`

The alphabet is `0-9A-Za-z` in ASCII order, so ids of one kind sort by time as plain text.
A secret version has a bare id of 12 random base62 characters, because it is a part of the issued key itself
(`keyturn.kernel.tokenformat`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NewType

from keyturn.kernel.secret import BASE62, random_base62

VersionId = NewType("VersionId", str)

VERSION_ID_LENGTH: Final = 12

_TIME_LENGTH: Final = 8
RANDOM_LENGTH: Final = 14
_BODY_LENGTH: Final = _TIME_LENGTH + RANDOM_LENGTH
_TIME_END_MS: Final = 62**_TIME_LENGTH
_PREFIX: Final = re.compile(r"[a-z][a-z0-9]{1,15}")
_BODY: Final = re.compile(rf"[0-9A-Za-z]{{{_BODY_LENGTH}}}")


def new_id(prefix: str, at: float, drawn: str | None = None) -> str:
    """Make an id of the kind `prefix` (`key`, without the `_`) for the time `at` in epoch seconds.

    `drawn` are RANDOM_LENGTH characters of `random_base62`, where those of many ids were drawn at once.
    Raises ValueError when the prefix is not 2-16 of `a-z0-9` starting with a letter, or the time does not fit.
    """
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError(f"expected an id prefix of 2-16 of a-z0-9 starting with a letter, found {prefix!r}")
    milliseconds = int(at * 1000)
    if not 0 <= milliseconds < _TIME_END_MS:
        raise ValueError("expected a time between 1970 and 8888")
    return f"{prefix}_{_base62(milliseconds)}{drawn or random_base62(RANDOM_LENGTH)}"


def is_id(prefix: str, text: str) -> bool:
    """Tell whether the text has the shape of an id of that kind; says nothing about existence."""
    head, _, body = text.partition("_")
    return head == prefix and _BODY.fullmatch(body) is not None


def new_version_id() -> VersionId:
    """Make the public id of a secret version: 12 random base62 characters (71 bits)."""
    return VersionId(random_base62(VERSION_ID_LENGTH))


@lru_cache(maxsize=16)
def _base62(number: int) -> str:
    digits = []
    for _ in range(_TIME_LENGTH):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    return "".join(reversed(digits))
