"""What is new in a version of a file, so that the rest need not be scanned again.

A secret that stands in a stretch which a file's earlier version has as well, byte for byte and with the same
surroundings, was found there.  So only the lines of a later version are scanned that have something new, with
surroundings on both sides that are at least as long as any match reaches over lines (see `reach`): a match that touches
a byte that is new is then inside, whole.  Surroundings are whole lines, and end neither within nor near a block of
encoded lines, such as a PEM key.

What a rule finds has to follow from the match and from no more than that much around it.  A rule that wants another
one to match anywhere in the document is none of these, so `surroundings` allows no trimming for a set that has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from keyturn.scanner.engine.plans import compiled, first_start
from keyturn.scanner.ruleset.model import Rule, Ruleset

if TYPE_CHECKING:
    import re2

CONTEXT_MIN = 4096
NEAR = 512
"""How many bytes surround what is new where no match begins that may reach over more; see `reaching_far`."""
LINES_MAX = 16
BLOCK_BYTES_MAX = 1 << 16
_ANCHOR = 96
_FIRST_STEP = 1 << 12
_LAST_STEP = 1 << 5
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_AROUND = b" \t\r\n\"'+#*>|,;\\"
_ENCODED_MIN = 32
_BORDER = 512
_NEAR = 64
_BEGINNINGS = (b"-----BEGIN ", b"---- BEGIN ", b"PuTTY-User-Key-File-", b"<RSAKeyValue>")
_WHOLE_ALWAYS = (".ipynb", ".har", ".eml", ".mbox", ".svg")

Stretch = tuple[int, int]


def surroundings(ruleset: Ruleset) -> int:
    """Return how many bytes have to surround what is new, for these rules; 0 when they do not allow trimming.

    Rules of blocks, such as PEM keys, do not count: where one begins, as much is taken in as the longest may have.
    """
    from keyturn.scanner.sources.reach import bytes_between_line_ends

    longest = CONTEXT_MIN
    for rule in ruleset.rules:
        for required in rule.requires:
            if required.within_lines is None or required.within_lines > LINES_MAX:
                return 0
        if rule.window > longest and not _is_of_blocks(rule):
            longest = max(longest, bytes_between_line_ends(rule))
    return longest


class Far(msgspec.Struct, frozen=True):
    """Where matches may reach over more lines than `NEAR` has: where one begins, and in all of some files.

    It is for rules that find nothing because of what stands elsewhere: no other rule, and no word of theirs.
    """

    begins: re2._Regexp
    paths: re2._Regexp | None

    def applies(self, path: str) -> bool:
        """Tell whether a match may reach far in a file of this path, whatever it begins with."""
        return self.paths is not None and self.paths.search(path.encode("utf-8", "surrogatepass")) is not None

    def within(self, data: bytes, start: int, end: int) -> bool:
        """Tell whether something begins between two places that may reach far."""
        return first_start(self.begins, data, start, end) >= 0


def reaching_far(ruleset: Ruleset) -> Far:
    """Return where matches reach over more lines than `NEAR` has, except those of blocks."""
    from keyturn.scanner.sources.reach import beginnings, bytes_between_line_ends

    rules = [rule for rule in ruleset.rules if rule.window > NEAR and not _is_of_blocks(rule)]
    far = [rule for rule in rules if bytes_between_line_ends(rule) > NEAR]
    paths = "|".join(f"(?:{rule.path})" for rule in far if rule.path)
    return Far(
        beginnings(rule for rule in far if not rule.path),
        compiled(paths, "paths of rules", captures=False) if paths else None,
    )


def _is_of_blocks(rule: Rule) -> bool:
    return rule.window <= BLOCK_BYTES_MAX and rule.regex.startswith(tuple(one.decode() for one in _BEGINNINGS))


def holds_block(data: bytes) -> bool:
    """Tell whether a block, such as a PEM key, begins somewhere."""
    for beginning in _BEGINNINGS:  # noqa: SIM110 -- `any` takes longer to make its generator than this to look
        if beginning in data:
            return True
    return False


def new_stretches(base: bytes, data: bytes, path: str, context: int, *, blocks: bool = True) -> list[Stretch] | None:
    """Return the stretches of `data` that have to be scanned when `base` was; None when that is all of it.

    `blocks` may be false when it is known that no block begins in `base`.
    They are in order, begin and end with lines, and do not overlap; none at all when nothing is new.
    """
    if len(data) <= 2 * context or path.endswith(_WHOLE_ALWAYS) or b"\0" in data or b"\0" in base:
        return None
    stretches: list[Stretch] = []
    for (start, end), old in _changed(base, data, context):
        around = (_back(data, start, context), _forth(data, end, context))
        if blocks or holds_block(data[max(0, start - _NEAR) : end + _NEAR]):
            around = _with_blocks(base, old, data, (start, end), around)
        opened, closed = around
        if stretches and opened <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], max(closed, stretches[-1][1]))
        else:
            stretches.append((opened, closed))
    return None if sum(end - start for start, end in stretches) * 4 > len(data) * 3 else stretches


def new_lines(base: bytes, data: bytes) -> tuple[Stretch, ...]:
    """Return the lines of `data` that `base` does not have anywhere, as first and last numbers from 1."""
    known = frozenset(base.splitlines())
    runs: list[list[int]] = []
    for number, line in enumerate(_lines_of(data), start=1):
        if line.rstrip(b"\r") in known or line in known:
            continue
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return tuple((first, last) for first, last in runs)


def _lines_of(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines[:-1] if lines and not lines[-1] else lines


def _changed(base: bytes, data: bytes, context: int) -> list[tuple[Stretch, Stretch]]:
    """Return what is left between the common beginning and end, without long stretches that `base` has too.

    Each is given with what stands in its place in `base`.
    """
    if base == data:
        return []
    most = min(len(base), len(data))
    start = _same_after(base, 0, data, 0, most)
    same = _same_before(base, len(base), data, len(data), most - start)
    return list(_split(base, (start, len(base) - same), data, (start, len(data) - same), 4 * context))


def _split(base: bytes, old: Stretch, data: bytes, new: Stretch, least: int) -> Iterator[tuple[Stretch, Stretch]]:
    """Divide what differs at a long stretch in the middle that is the same, if there is one, and go on on both sides.

    Every place where two bytes are neighbours that are none in `base` is in, or on a border of, what is returned.
    """
    if new[1] - new[0] >= least and old[1] - old[0] >= least:
        for part in (2, 3, 1):
            middle = data.find(b"\n", new[0] + (new[1] - new[0]) * part // 4, new[1] - _ANCHOR)
            at = base.find(data[middle : middle + _ANCHOR], *old) if middle >= 0 else -1
            if at < 0:
                continue
            before = _same_before(base, at, data, middle, min(at - old[0], middle - new[0]))
            after = _same_after(base, at, data, middle, min(old[1] - at, new[1] - middle))
            if before + after >= least:
                yield from _split(base, (old[0], at - before), data, (new[0], middle - before), least)
                yield from _split(base, (at + after, old[1]), data, (middle + after, new[1]), least)
                return
    yield new, old


def _same_after(one: bytes, start: int, other: bytes, begin: int, most: int) -> int:
    """Return how many bytes from two places on are the same."""
    same, step = 0, _FIRST_STEP
    view = memoryview(other)
    while same < most:
        size = min(step, most - same)
        second = begin + same
        # A view and `startswith` compare what a slice would copy first.
        if one.startswith(view[second : second + size], start + same):
            same += size
            step *= 4
        elif size <= _LAST_STEP:
            return same + _same_of_few(one[start + same :][:size], other[second : second + size])
        else:
            most, step = same + size, size // 4
    return same


def _same_before(one: bytes, end: int, other: bytes, close: int, most: int) -> int:
    """Return how many bytes up to two places are the same."""
    same, step = 0, _FIRST_STEP
    view = memoryview(other)
    while same < most:
        size = min(step, most - same)
        last, final = end - same, close - same
        if one.startswith(view[final - size : final], last - size):
            same += size
            step *= 4
        elif size <= _LAST_STEP:
            return same + _same_of_few(one[last - size : last][::-1], other[final - size : final][::-1])
        else:
            most, step = same + size, size // 4
    return same


def _same_of_few(one: bytes, other: bytes) -> int:
    """Return how many bytes some few have in common at their beginning."""
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right), len(one))


def _back(data: bytes, position: int, context: int) -> int:
    """Return where a stretch begins that has `position` in it: at a line, `context` before, and before a block."""
    line = data.rfind(b"\n", 0, position) + 1
    position = data.rfind(b"\n", 0, max(0, line - context)) + 1
    near = _has_encoded(data, position, position + _BORDER)
    while position:
        before = data.rfind(b"\n", 0, position - 1) + 1
        if not _encoded(data[before:position]):
            break
        position, near = before, True
    return data.rfind(b"\n", 0, max(0, position - _BORDER)) + 1 if near else position


def _forth(data: bytes, position: int, context: int) -> int:
    position = _line_end(data, _line_end(data, position) + context)
    near = _has_encoded(data, max(0, position - _BORDER), position)
    while position < len(data):
        after = _line_end(data, position)
        if not _encoded(data[position:after]):
            break
        position, near = after, True
    return _line_end(data, position + _BORDER) if near else position


def _with_blocks(base: bytes, old: Stretch, data: bytes, new: Stretch, around: Stretch) -> Stretch:
    """Take in every block that may reach into what is new, as long as any may be.

    So is what follows where a block began before: it may have been taken for a part of that one.
    """
    opened, closed = around
    # A beginning may itself be new only in part.
    for beginning in _BEGINNINGS:
        end = new[1] + len(beginning)
        first = data.find(beginning, max(0, new[0] - BLOCK_BYTES_MAX), end)
        if first >= 0:
            opened = min(opened, data.rfind(b"\n", 0, first) + 1)
            closed = max(closed, _line_end(data, data.rfind(beginning, first, end) + BLOCK_BYTES_MAX))
        if base.find(beginning, max(0, old[0] - len(beginning)), old[1] + len(beginning)) >= 0:
            closed = max(closed, _line_end(data, new[1] + BLOCK_BYTES_MAX))
    return opened, closed


def _line_end(data: bytes, position: int) -> int:
    found = data.find(b"\n", position)
    return len(data) if found < 0 else found + 1


def _has_encoded(data: bytes, start: int, end: int) -> bool:
    """Tell whether a line, or what of it is between two places, is nothing but encoded bytes."""
    # Most lines have words in them, and are passed over at once.
    return first_start(_run(), data, start, min(end, len(data))) >= 0 and any(
        map(_encoded, data[start:end].split(b"\n"))
    )


@cache
def _run() -> re2._Regexp:
    alphabet = _ALPHABET.decode().removesuffix("_-")
    return compiled(f"[{alphabet}_\\-]{{{_ENCODED_MIN}}}", "encoded lines", captures=False)


def _encoded(line: bytes) -> bool:
    """Tell whether a line is nothing but encoded bytes, such as one of many."""
    if len(line) < _ENCODED_MIN:
        return False
    inner = line.strip(_AROUND).removesuffix(b"\\n").removesuffix(b"\\r")
    return len(inner) >= _ENCODED_MIN and not inner.translate(None, _ALPHABET)
