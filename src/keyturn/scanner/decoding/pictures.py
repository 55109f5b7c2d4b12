"""Pictures and fonts that stand in a text as base64: often most of its bytes, and nothing that a person wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.scanner.model import Bytes

MEDIA: Final = (b"iVBORw0KGg", b"/9j/", b"R0lGODlh", b"R0lGODdh", b"UklGR", b"d09GR", b"d09GM", b"AAEAAAA")
"""How base64 of pictures and fonts begins: large, and never a text."""
RUN: Final = re.compile(rb"[A-Za-z0-9+/_\-]*")
LEAST: Final = 16 << 10
"""A shorter one is read like any text: that costs less than to tell it apart."""
_MARK: Final = b";base64,"


def pictures(data: Bytes) -> list[tuple[int, int]]:
    """Return where the large pictures of data URIs stand, as half-open runs of base64 in order.

    No key stands in such a run, whatever it looks like in some place.
    """
    found: list[tuple[int, int]] = []
    if len(data) < LEAST or not isinstance(data, bytes):
        return found
    start = data.find(_MARK)
    while start >= 0:
        start += len(_MARK)
        end = start
        if data.startswith(MEDIA, start) and (run := RUN.match(data, start)) is not None:
            end = run.end()
            if end - start >= LEAST:
                found.append((start, end))
        start = data.find(_MARK, end)
    return found
