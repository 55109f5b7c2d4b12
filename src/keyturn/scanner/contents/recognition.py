"""What some bytes are, by how they begin; names decide only where bytes do not."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from keyturn.scanner.contents.beginnings import PARTLY, PARTLY_BEGINNINGS
from keyturn.scanner.contents.compression import Compression
from keyturn.scanner.contents.tar import is_tar
from keyturn.scanner.model import Problem


class Form(StrEnum):
    """What is opened in a way of its own."""

    TEXT = "text"
    BINARY = "binary"
    WIDE_TEXT = "wide-text"
    """UTF-16 or UTF-32."""
    TAR = "tar"
    ZIP = "zip"
    AR = "ar"
    CLOSED = "closed"
    """An archive of a format that is not opened."""


_COMPRESSIONS: Final = (
    (b"\x1f\x8b\x08", Compression.GZIP),
    (b"\xfd7zXZ\x00", Compression.XZ),
    (b"\x28\xb5\x2f\xfd", Compression.ZSTANDARD),
)
_CLOSED: Final = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xed\xab\xee\xdb", b"MSCF\0\0\0\0")
_TAR_KINDS: Final = frozenset(b"\0" + b"01234567LKxgXSDMNV")
_UNPRINTABLE: Final = bytes(range(9)) + b"\x0e\x0f" + bytes(range(16, 27)) + b"\x1c\x1d\x1e\x1f\x7f"


def recognise(head: bytes, path: str = "") -> Form | Compression:
    """Tell what begins like that; `path` is the name of the innermost file."""
    for beginning, compression in _COMPRESSIONS:
        if head.startswith(beginning):
            return compression
    if head[:2] == b"BZ" and head[2:3] == b"h" and head[4:10] in {b"1AY&SY", b"\x17rE8P\x90"}:
        return Compression.BZIP2
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return Compression.ZSTANDARD
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK", b"Cr24")):
        return Form.ZIP
    if head.startswith(b"!<arch>\n"):
        return Form.AR
    if head.startswith(_CLOSED):
        return Form.CLOSED
    if len(head) >= 512 and head[156] in _TAR_KINDS and is_tar(head):
        return Form.TAR
    if head[:3] == b"\x5d\x00\x00" and path.endswith((".lzma", ".tlz")):
        return Compression.LZMA
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"} or head[:4] == b"\0\0\xfe\xff" or _is_wide(head):
        return Form.WIDE_TEXT
    return Form.BINARY if _is_binary(head) else Form.TEXT


def told_of(head: bytes) -> tuple[Problem, str] | None:
    """Return what is to be told of something that is scanned only as it stands; None of anything else."""
    if not head.startswith(PARTLY_BEGINNINGS):
        return None
    return next(told for beginning, told in PARTLY.items() if head.startswith(beginning))


def _is_wide(head: bytes) -> bool:
    """Whether every other byte is zero, as in UTF-16 without a mark."""
    if b"\0" not in head[:2] or len(head) < 16:
        return False
    sample = head[: len(head) // 2 * 2]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    return max(even, odd) * 10 >= half * 8 and min(even, odd) * 20 <= half


def _is_binary(head: bytes) -> bool:
    if b"\0" in head:
        return True
    return len(head) - len(head.translate(None, _UNPRINTABLE)) > len(head) // 10
