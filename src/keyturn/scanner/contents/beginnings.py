"""What tells a plain text from everything else at once, so that most files need nothing more to be imported."""

from __future__ import annotations

from typing import Final

from keyturn.scanner.model import Problem

HEAD: Final = 4096
"""How many bytes are looked at."""
SUSPECT: Final = frozenset(b"PB!7RCM(]\x1f\xfd\xed\xfe\xff") | frozenset(range(0x50, 0x60))
"""First bytes of what is no plain text although no zero follows soon."""
SCRIPTS: Final = (".js", ".mjs", ".cjs", ".css")
"""Names of what may be made for browsers."""
_COMPRESSED: Final = "is compressed in a way that is not undone: only what stands in it as it is was scanned"
_ENCRYPTED: Final = "is encrypted: only what stands in it as it is was scanned"
PARTLY: Final[dict[bytes, tuple[Problem, str]]] = {
    b"\x04\x22\x4d\x18": (Problem.CLOSED, _COMPRESSED),  # lz4
    b"LZIP": (Problem.CLOSED, _COMPRESSED),
    b"\x1f\x9d": (Problem.CLOSED, _COMPRESSED),  # compress
    b"%PDF-": (Problem.SKIPPED, "is a PDF: its compressed streams were not scanned"),
    b"age-encryption.org/": (Problem.SKIPPED, _ENCRYPTED),
    b"Salted__": (Problem.SKIPPED, _ENCRYPTED),  # openssl enc
}
"""What is scanned as it stands, by its beginning, and what is told of the rest of it."""
PARTLY_BEGINNINGS: Final = tuple(PARTLY)
