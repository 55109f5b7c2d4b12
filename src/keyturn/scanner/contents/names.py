"""Names as a person reads them: nothing in a name of an archive can break a report or a terminal."""

from __future__ import annotations


def shown(raw: bytes, most: int = 1024) -> str:
    r"""Return a member's name: UTF-8 where it is, other bytes and control characters as `\xNN`, cut to `most` bytes."""
    text = raw[:most].decode("utf-8", "backslashreplace")
    if len(raw) > most:
        text += "…"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(ord(one)) for one in text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
