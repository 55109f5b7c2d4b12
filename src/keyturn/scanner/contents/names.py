"""Names as a person reads them: nothing in a name of an archive can break a report or a terminal."""

from __future__ import annotations

import re
from typing import Final

_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def shown(raw: bytes, most: int = 1024) -> str:
    r"""Return a member's name: UTF-8 where it is, other bytes and control characters as `\xNN`, cut to `most` bytes."""
    text = raw[:most].decode("utf-8", "backslashreplace")
    if len(raw) > most:
        text += "…"
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
