"""Take values out of a stream of bytes, in the forms in which programs print them.

    value -> patterns   raw, JSON-escaped, URL-encoded, base64 and base64url at each of its 3 offsets, hexadecimal
    chunk -> Masker     every occurrence, also overlapping ones and those across chunks, becomes a run of one character

Best effort against accidents, not against a program that wants to print a value: it can print it in another form, or
character by character with something between.  Values under 6 characters are left alone, because they are words.
What is held back between two chunks is only what may be the beginning of a pattern, and never more than `PIECE_BYTES`:
a longer value is looked for in pieces.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VALUE_BYTES_MIN: Final = 6
PIECE_BYTES: Final = 4096
MASK_LENGTH: Final = 8
_OPENING: Final = 4
_MASKS: Final = b"*#.=~_-+:%^!?|"


def patterns_of(values: Iterable[str | bytes]) -> tuple[bytes, ...]:
    """Return what to look for, given the values; each line of a value of several lines is looked for as well."""
    found: dict[bytes, None] = {}
    for value in values:
        raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        lines = [line.strip() for line in raw.splitlines()] if b"\n" in raw or b"\r" in raw else []
        for text in (raw, raw.strip(), *lines):
            if len(text) >= VALUE_BYTES_MIN:
                found.update(dict.fromkeys(piece for form in _forms(text) for piece in _pieces(form)))
    return tuple(found)


@final
class Masker:
    """Masks one stream: feed it chunks, write what it returns, and at the end what `finish` returns."""

    __slots__ = ("_beginnings", "_by_opening", "_covered", "_held", "_length_max", "_mask", "_patterns")

    def __init__(self, patterns: Iterable[bytes]) -> None:
        """Look for these; none of them may be empty."""
        self._patterns = tuple(patterns)
        # Of a character that is in no pattern, no pattern can be put together from a mask and what is beside it.
        used = set().union(*self._patterns) if self._patterns else set()
        character = next((one for one in (*_MASKS, *range(256)) if one not in used), _MASKS[0])
        self._mask = bytes((character,)) * MASK_LENGTH
        self._held = b""
        self._covered = 0
        # Nearly every place in ordinary text is ruled out by its first four bytes.
        self._by_opening: dict[bytes, list[bytes]] = {}
        for pattern in self._patterns:
            self._by_opening.setdefault(pattern[:_OPENING], []).append(pattern)
        self._beginnings = {one[:size] for one in self._patterns for size in range(1, _OPENING) if size < len(one)}
        self._length_max = max(map(len, self._patterns), default=0)

    def feed(self, chunk: bytes) -> bytes:
        """Take in a chunk; return what can be written."""
        text = self._held + chunk
        return self._advance(text, self._beginning(text))

    def finish(self) -> bytes:
        """Return what was held back: nothing follows that would make a pattern of it."""
        return self._advance(self._held, len(self._held))

    def _advance(self, text: bytes, keep: int) -> bytes:
        """Return text up to `keep` with occurrences masked, and hold the rest."""
        written: list[bytes] = []
        # The bytes up to `_covered` belong to an occurrence whose mask is written already.
        at = end = self._covered
        for start, stop in self._occurrences(text):
            if start >= keep:
                break
            if start >= end:
                written += (text[at:start], self._mask)
            at = end = max(end, stop)
        written.append(text[at:keep])
        self._held = text[keep:]
        self._covered = max(0, end - keep)
        return b"".join(written)

    def _beginning(self, text: bytes) -> int:
        """Return where text ends in something that may go on to be a pattern; its length when it does not."""
        size = len(text)
        for at in range(max(0, size - self._length_max + 1), size):
            if size - at < _OPENING:
                if text[at:] in self._beginnings:
                    return at
                continue
            for pattern in self._by_opening.get(text[at : at + _OPENING], ()):
                if len(pattern) > size - at and pattern.startswith(text[at:]):
                    return at
        return size

    def _occurrences(self, text: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for pattern in self._patterns:
            at = text.find(pattern)
            while at >= 0:
                found.append((at, at + len(pattern)))
                at = text.find(pattern, at + 1)
        return sorted(found)


def _forms(raw: bytes) -> Iterator[bytes]:
    yield raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        pass
    else:
        yield json.dumps(text)[1:-1].encode()
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode()
        yield json.dumps(text)[1:-1].replace("/", "\\/").encode()
    for encoded in {quote(raw, safe=""), quote(raw), quote_plus(raw)}:
        yield encoded.encode()
        yield _lower_escapes(encoded).encode()
    for offset in range(3):
        yield from _base64_at(raw, offset)
    yield raw.hex().encode()
    yield raw.hex().upper().encode()


def _base64_at(raw: bytes, offset: int) -> Iterator[bytes]:
    """Return what is always the same of the base64 of text that holds raw at an offset of 0, 1 or 2 (modulo 3)."""
    encoded = base64.b64encode(bytes(offset) + raw)
    first = (0, 2, 3)[offset]
    # The last character, or two, also depend on what follows.
    whole = (offset + len(raw)) * 8 // 6
    inner = encoded[first:whole]
    if len(inner) >= VALUE_BYTES_MIN:
        yield inner
        yield inner.translate(bytes.maketrans(b"+/", b"-_"))


def _lower_escapes(encoded: str) -> str:
    head, *rest = encoded.split("%")
    return head + "".join("%" + part[:2].lower() + part[2:] for part in rest)


def _pieces(pattern: bytes) -> Iterator[bytes]:
    """Cut a long pattern into pieces that are looked for one by one, none of them too short to be told from words."""
    if len(pattern) <= PIECE_BYTES:
        yield pattern
        return
    for start in range(0, len(pattern), PIECE_BYTES):
        piece = pattern[start : start + PIECE_BYTES]
        yield piece if len(piece) >= VALUE_BYTES_MIN else pattern[-VALUE_BYTES_MIN:]
