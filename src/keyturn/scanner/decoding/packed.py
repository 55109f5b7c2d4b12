"""What is compressed and then encoded: gzip inside base64, as releases of charts and cloud-init have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.model import Bytes

PACKED_BASE64: Final = rb"(?:H4sI|eJ[wxyz]|eNq|eNp|eAE|KLUv|/Td6WFo|UEsDB|QlpoO)[A-Za-z0-9+/_\-]{20}"
"""How base64 begins of what begins like gzip, zlib, zstandard, xz, zip and bzip2."""

_PREFIXES: Final = (b"H4sI", b"eJ", b"eN", b"eAE", b"KLUv", b"/Td6", b"UEsD", b"Qlpo")
_BEGINNINGS: Final = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x78\x9c": "zlib",
    b"\x78\xda": "zlib",
    b"\x78\x01": "zlib",
}


def is_packed(data: Bytes, start: int, end: int) -> bool:
    """Whether the base64 that was found may be of something compressed."""
    return bytes(data[start : min(end, start + 8)]).startswith(_PREFIXES)


def unpacked_text(raw: bytes, budget: Budget) -> tuple[bytes, str, bool] | None:
    """Return what is compressed in some bytes, how, and whether a bound cut it; None when nothing is."""
    name = next((name for beginning, name in _BEGINNINGS.items() if raw.startswith(beginning)), None)
    if name is None:
        return None
    from keyturn.scanner.contents.unfolding import unfold

    text, cut = unfold(raw, name, budget)
    return (text, name, cut) if text else None
