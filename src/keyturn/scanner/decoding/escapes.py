r"""Percent signs and backslashes: `%3D`, `\u003d`, `\x3d`, `\n` and `\"`."""

from __future__ import annotations

import re
from typing import Final

_PERCENT: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|([nrtbf\"'/\\`]))")
_SINGLE: Final = {
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"b": b" ",
    b"f": b"\n",
    b'"': b'"',
    b"'": b"'",
    b"/": b"/",
    b"`": b"`",
    b"\\": b"\\",
}


def percent_decoded(text: bytes) -> bytes:
    """Return a text with every valid percent escape replaced by its byte."""
    return _PERCENT.sub(lambda found: bytes.fromhex(found[1].decode()), text)


def unescaped(text: bytes) -> bytes:
    """Return a text with the escapes of JSON, JavaScript, Python and C resolved; what is none stays."""
    return _ESCAPE.sub(_resolve, text)


def _resolve(found: re.Match[bytes]) -> bytes:
    if single := found[4]:
        return _SINGLE[single]
    if found[3]:
        return bytes.fromhex(found[3].decode())
    code = int(found[1] or found[2], 16)
    return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else found[0]
