r"""What a text hides: base64, hexadecimal, percent and escaped runs, and what is compressed inside of base64.

One pass of RE2 asks whether there is anything at all, and nearly every file of a source tree ends there.
The expression for base64 is no alphabet but the shape that ASCII text has in base64: the top bit of every byte is
zero, which leaves 32, 32 and 32 of the 64 characters for the first three of each four.
So paths, identifiers, digests and pictures are never decoded, in either alphabet and at whatever place a run begins.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.scanner.decoding.escapes import percent_decoded, unescaped
from keyturn.scanner.decoding.packed import PACKED_BASE64, is_packed, unpacked_text
from keyturn.scanner.decoding.pictures import MEDIA, RUN
from keyturn.scanner.engine.plans import first_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.scanner.contents.budget import Budget
    from keyturn.scanner.model import Bytes

_FOUR: Final = rb"[A-Za-f][A-HQ-Xg-nw-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_\-]"
_BASE64: Final = rb"(?:" + _FOUR + rb"){5}"
_HEXADECIMAL: Final = rb"(?:[2-7][0-9A-Fa-f]){12}|1f8b0800[0-9a-f]{24}"
_PERCENT: Final = rb"%[2-7][0-9A-Fa-f]"
_ESCAPES: Final = rb"\\u00[2-7][0-9A-Fa-f]|\\x[2-7][0-9A-Fa-f]|\\u\{|\\[nrt][0-9A-Za-z_\-]{16}|:\\/\\/|\\\" ?: ?\\\""
_SHORTEST: Final = 12
_WRAPPED_LEAST: Final = 40
_REACH: Final = 16 << 10
_BACK: Final = 4096
_BACK_MOST: Final = _BACK << 12
_HEX_RUN: Final = re.compile(rb"[0-9A-Fa-f]*")
_NEXT_LINE: Final = re.compile(rb"\r?\n[ \t]*([A-Za-z0-9+/_\-]{1,1024}={0,2})(?=[\r\n\"'`]|\Z)")
_TOKEN: Final = re.compile(rb"[^\s\"'`<>]*")
_LINE: Final = re.compile(rb"[^\n]*")
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_KEPT: Final = frozenset(b"\t\n\r") | frozenset(range(32, 127))
_TEXT_ONLY: Final = bytes(byte if byte in _KEPT else 10 for byte in range(256))
_TEXT: Final = bytes(sorted(_KEPT))
_STRING: Final = re.compile(rb"[^\n]{12,}")


class Layer(msgspec.Struct, frozen=True):
    """What an encoded run says, and where in its parent the run stands; offsets are half open.

    `cut` when a bound was hit: `data` may be only the beginning, or be followed by runs that are not given.
    """

    data: bytes
    start: int
    end: int
    encoding: str
    cut: bool = False


def decoded(data: Bytes, budget: Budget, passed: Sequence[tuple[int, int]] = ()) -> Iterator[Layer]:
    """Give the runs of a text that are encoded, decoded by one step each; call it again on what it gives.

    `passed` are its `pictures`, in which nothing is looked for.
    No two of them overlap.  When there are more than there may be, the last one is `cut`.
    Whatever the bytes are, nothing is raised, and the time is linear in them.
    """
    expression = _expression()
    size = len(data)
    place = 0
    count, most = 0, budget.layers * (1 + (size >> 20))
    for until, after in (*passed, (size, size)):
        while place < until and (found := first_span(expression, data, place, until))[0] >= 0:
            layer, place = _layer(data, *found, place, budget)
            if layer is not None:
                count += 1
                if count > most:
                    yield msgspec.structs.replace(layer, cut=True)
                    return
                yield layer
        place = max(place, after)


@cache
def _expression() -> Any:  # noqa: ANN401 -- re2 ships no types
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(b"|".join((_BASE64, _HEXADECIMAL, _PERCENT, _ESCAPES, PACKED_BASE64)), options)


def _layer(data: Bytes, start: int, end: int, floor: int, budget: Budget) -> tuple[Layer | None, int]:
    """Decode what was found; return where to go on, which is always further on than `start`."""
    match data[start]:
        case 37:  # %
            return _percent(data, start, floor)
        case 92 | 58:  # a backslash, or the colon before two escaped slashes
            return _escaped(data, start, end, floor)
    if _HEX_RUN.fullmatch(data, start, end):
        return _hexadecimal(data, start, end, floor, budget)
    return _base64(data, start, end, floor, budget)


def _percent(data: Bytes, start: int, floor: int) -> tuple[Layer | None, int]:
    first = start - _back(_TOKEN, data, start, floor)
    last = _forward(_TOKEN, data, start)
    raw = percent_decoded(bytes(data[first:last]))
    if len(raw) < _SHORTEST:
        return None, last
    return Layer(raw, first, last, "percent"), last


def _escaped(data: Bytes, start: int, end: int, floor: int) -> tuple[Layer | None, int]:
    first = start - _back(_LINE, data, start, floor)
    last = max(end, _forward(_LINE, data, start))
    if last - start >= _REACH:
        last = _forward(_TOKEN, data, last)
    text = unescaped(bytes(data[first:last]))
    return Layer(text, first, last, "escapes"), last


def _hexadecimal(data: Bytes, start: int, end: int, floor: int, budget: Budget) -> tuple[Layer | None, int]:
    first = start - _back(_HEX_RUN, data, start, floor, _BACK_MOST) // 2 * 2
    last = _match_end(_HEX_RUN, data, end)
    last -= (last - first) % 2
    raw = binascii.unhexlify(bytes(data[first:last]))
    return _read(raw, first, last, "hexadecimal", budget), last


def _base64(data: Bytes, start: int, end: int, floor: int, budget: Budget) -> tuple[Layer | None, int]:
    packed = is_packed(data, start, end)
    if packed:
        first = start
        if start > floor and RUN.fullmatch(data, start - 1, start):
            return None, start + 1
    else:
        run = start - _back(RUN, data, start, floor, _BACK_MOST)
        if bytes(data[run : run + 12]).startswith(MEDIA):
            return None, _match_end(RUN, data, end)
        first = start - (start - run) // 4 * 4
    last = _match_end(RUN, data, end)
    text = bytes(data[first:last])
    if len(text) % 4 == 0 and len(text) >= _WRAPPED_LEAST:
        text, last = _wrapped(data, text, last)
    if len(text) < 20:
        return None, last
    return _read(_base64_bytes(text), first, last, "base64", budget), last


def _base64_bytes(text: bytes) -> bytes:
    text = text.translate(_STANDARD)
    spare = len(text) % 4
    text = text[:-1] if spare == 1 else text + b"=" * (-len(text) % 4)
    return binascii.a2b_base64(text)


def _wrapped(data: Bytes, text: bytes, last: int) -> tuple[bytes, int]:
    """Go on over lines of the same length, as mail and certificates wrap base64."""
    lines = [text]
    width = 0
    while found := _NEXT_LINE.match(data, last):
        line = found[1]
        if width and len(line) > width:
            break
        last = found.end()
        lines.append(line.rstrip(b"="))
        if len(line) % 4 or line.endswith(b"=") or (width and len(line) < width):
            break
        width = width or len(line)
    return b"".join(lines), last


def _read(raw: bytes, start: int, end: int, encoding: str, budget: Budget) -> Layer | None:
    """Make text of what was decoded: unpacked, in UTF-8, and without what no text has."""
    unfolded = unpacked_text(raw, budget)
    if unfolded is not None:
        text, name, cut = unfolded
        return Layer(text, start, end, f"{encoding}+{name}", cut)
    if raw.translate(None, _TEXT):
        raw = _as_text(raw)
    if len(raw) < _SHORTEST:
        return None
    return Layer(raw, start, end, encoding)


def _as_text(raw: bytes) -> bytes:
    zeros = raw.count(0)
    if zeros * 3 > len(raw):  # UTF-16 of mostly ASCII
        return raw.replace(b"\0", b"")
    if not zeros:
        try:
            raw.decode()
        except UnicodeDecodeError:
            pass
        else:
            return raw
    return b"\n".join(_STRING.findall(raw.translate(_TEXT_ONLY)))


def _back(run: re.Pattern[bytes], data: Bytes, start: int, floor: int, most: int = _BACK) -> int:
    """Return how long the run is that ends at `start`; it does not reach beyond `floor`, which no later call passes."""
    reach = _BACK
    while True:
        before = bytes(data[max(floor, start - reach) : start])[::-1]
        found = run.match(before)
        length = found.end() if found else 0
        if length < reach or reach >= most:
            return length
        reach *= 16


def _forward(run: re.Pattern[bytes], data: Bytes, start: int) -> int:
    return _match_end(run, data, start, min(len(data), start + _REACH))


def _match_end(run: re.Pattern[bytes], data: Bytes, start: int, end: int | None = None) -> int:
    found = run.match(data, start, len(data) if end is None else end)
    return found.end() if found else start
