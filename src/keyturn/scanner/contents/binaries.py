"""What can be read in bytes that are no text: the strings of programs, of compiled Python and of Java classes.

Compiled Python is not loaded: hostile bytes crash the loader.  Its strings are found by the type and length that stand
before each of them, and those two bytes are not taken for characters of the string.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.model import Bytes

_SHORTEST: Final = 8
MEDIA_EDGE: Final = 64 << 10
"""How much of the beginning and of the end of a picture is read: what was written about it stands there."""
_MEDIA: Final = (
    b"\x89PNG\r\n",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"wOFF",
    b"wOF2",
    b"OggS",
    b"ID3",
    b"\x1aE\xdf\xa3",
    b"fLaC",
)
_PRINTED: Final = bytes(byte if 32 <= byte < 127 or byte == 9 else 10 for byte in range(256))
_FLAT: Final = bytes(10 if byte == 10 else 97 for byte in _PRINTED)
"""Every printable byte is the same one, so that a string can be looked for as such."""
_LEAST: Final = b"a" * _SHORTEST
_MARSHAL: Final = re.compile(rb"[zZ\xfa\xda]|[aAutsi\xe1\xc1\xf5\xf4\xf3](?=[\s\S]{3}\x00)")
_SHORT_TYPES: Final = frozenset(b"zZ\xfa\xda")
_PYTHON_MAGICS: Final = range(3000, 4000)
_CLASS_SIZES: Final = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4}
_CLASS_SIZES_MORE: Final = {19: 2, 20: 2}


def is_media(head: bytes) -> bool:
    """Whether it begins as a picture, a font, a sound or a film does: compressed, and without strings in the middle."""
    return head.startswith(_MEDIA) or head[4:8] == b"ftyp"


def is_compiled_python(head: bytes) -> bool:
    """Whether it begins as the cache of a module does."""
    return head[2:4] == b"\r\n" and len(head) >= 16 and int.from_bytes(head[:2], "little") in _PYTHON_MAGICS


def is_java_class(head: bytes) -> bool:
    """Whether it begins as a class does, and not as a program of macOS."""
    return head[:4] == b"\xca\xfe\xba\xbe" and len(head) >= 10 and head[6] == 0 and head[7] >= 45


def strings(data: bytes) -> bytes:
    """Return the printable strings of some bytes, one in each line; those of two bytes a character come last."""
    if data == bytes(len(data)):  # what sparse files and bombs are made of
        return b""
    found = [_without_length(data[start:end]) for start, end in _printed_runs(data.translate(_FLAT))]
    if wide := wide_strings(data):
        found.append(wide)
    return b"\n".join(found)


def wide_strings(data: Bytes) -> bytes:
    """Return the printable strings of two bytes a character, one in each line."""
    return b"\n".join(bytes(data[run.start() : run.end() : 2]) for run in _wide_runs().finditer(data))


def strings_of_python(data: bytes) -> bytes:
    """Return the strings of compiled Python, one after the other in lines, and whatever else is printable in it."""
    found: list[bytes] = []
    rest: list[bytes] = []
    place = 16
    for start, end in _marshalled(data):
        rest.append(data[place:start])
        found.append(data[start:end])
        place = end
    rest.append(data[place:])
    others = strings(b"\0".join(part for part in rest if len(part) >= _SHORTEST))
    return b"\n".join([*found, others] if others else found)


def strings_of_java(data: bytes) -> bytes:
    """Return the strings of a class's constants; those of any bytes when it is damaged."""
    constants = list(_constants(data))
    return b"\n".join(constants) if constants else strings(data)


@cache
def _wide_runs() -> Any:  # noqa: ANN401 -- re2 ships no types
    """Return what finds strings of two bytes a character: RE2, because most programs are large and have none."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(rb"(?:[\x20-\x7e]\x00){%d,}" % _SHORTEST, options)


def _printed_runs(flat: bytes) -> Iterator[tuple[int, int]]:
    # What is compressed has a short run at every step: an expression would try each of them, and this leaps over them.
    at = flat.find(_LEAST)
    while at >= 0:
        end = flat.find(b"\n", at)
        end = len(flat) if end < 0 else end
        yield at, end
        at = flat.find(_LEAST, end)


def _without_length(run: bytes) -> bytes:
    """Drop a first character that is no character, but the length of what follows."""
    return run[1:] if run[0] == len(run) - 1 else run


def _marshalled(data: bytes) -> Iterator[tuple[int, int]]:
    """Find strings by their type and length: from the place after one string the next is looked for."""
    place = 16
    while found := _MARSHAL.search(data, place):
        at = found.start()
        place = at + 1
        kind = data[at]
        if kind in _SHORT_TYPES:
            if at + 2 > len(data):
                return
            start, length = at + 2, data[at + 1]
        else:
            start, length = at + 5, int.from_bytes(data[at + 1 : at + 5], "little")
        end = start + length
        if length < 4 or end > len(data) or not _is_text(data[start:end], short=kind in _SHORT_TYPES):
            continue
        yield start, end
        place = end


def _is_text(text: bytes, *, short: bool) -> bool:
    if text.isascii():
        return b"\0" not in text and (not short or text.translate(_PRINTED).count(b"\n") <= 1 + text.count(b"\n") * 2)
    if short:
        return False
    try:
        return text.decode("utf-8", "surrogatepass").isprintable() or b"\n" in text
    except UnicodeDecodeError:
        return False


def _constants(data: bytes) -> Iterator[bytes]:
    count = int.from_bytes(data[8:10], "big")
    at = 10
    index = 1
    while index < count and at < len(data):
        tag = data[at]
        if tag == 1 and at + 3 <= len(data):
            (length,) = struct.unpack_from(">H", data, at + 1)
            at += 3 + length
            text = data[at - length : at]
            if length >= 4:
                yield text
        else:
            size = _CLASS_SIZES.get(tag) or _CLASS_SIZES_MORE.get(tag)
            if size is None:
                yield strings(data[at:])
                return
            at += 1 + size
            index += tag in {5, 6}
        index += 1
