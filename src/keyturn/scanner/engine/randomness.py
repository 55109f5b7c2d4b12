"""How random a value looks: what of it words and sequences explain, and how the rest is mixed."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

_SEQUENCE: Final = 4
_WOVEN: Final = 8
_WORD_MIN: Final = 4
_WORD_MAX: Final = 16
_LOWER, _UPPER, _DIGIT, _OTHER = range(4)
_CLASSES: Final = bytes(
    _LOWER if 97 <= byte <= 122 else _UPPER if 65 <= byte <= 90 else _DIGIT if 48 <= byte <= 57 else _OTHER
    for byte in range(256)
)

_CONSONANTS: Final = bytes(
    byte if chr(byte).isalpha() and byte < 128 and chr(byte) not in "aeiouyAEIOUY" else 32 for byte in range(256)
)


class Mixture(msgspec.Struct, frozen=True):
    """What a value is made of.

    letters, digits, others    how many characters of each sort
    lower, upper               how many letters of each case
    explained                  how many characters are a part of a word, of a sequence or of a repetition
    unexplained                how many letters and digits are not
    changes                    how often a letter or digit is of another class than the one before it
    consonants                 the longest run of letters that nobody could pronounce
    entropy                    Shannon's, in bits a character
    """

    length: int
    lower: int
    upper: int
    digits: int
    others: int
    explained: int
    unexplained: int
    changes: int
    consonants: int
    entropy: float

    @property
    def letters(self) -> int:
        """Return how many letters there are."""
        return self.lower + self.upper

    @property
    def classes(self) -> int:
        """Return how many of the four classes of characters occur."""
        return (self.lower > 0) + (self.upper > 0) + (self.digits > 0) + (self.others > 0)


def shannon_entropy(value: bytes) -> float:
    """Return the entropy of a value's bytes in bits a character, 0 for an empty one."""
    size = len(value)
    return -sum(count / size * math.log2(count / size) for count in Counter(value).values())


def mixture(value: bytes) -> Mixture:
    """Take a value apart."""
    classes = value.translate(_CLASSES)
    marked = bytearray(len(value))
    lowered = value.lower()
    _mark_words(lowered, marked)
    _mark_sequences(lowered, marked)
    unexplained = sum(1 for mark, kind in zip(marked, classes, strict=True) if not mark and kind != _OTHER)
    return Mixture(
        length=len(value),
        lower=classes.count(_LOWER),
        upper=classes.count(_UPPER),
        digits=classes.count(_DIGIT),
        others=classes.count(_OTHER),
        explained=sum(marked),
        unexplained=unexplained,
        changes=sum(1 for a, b in pairwise(classes) if a != b and _OTHER not in (a, b)),
        consonants=max(map(len, value.translate(_CONSONANTS).split(b" "))),
        entropy=shannon_entropy(value),
    )


def _mark_words(value: bytes, marked: bytearray) -> None:
    """Mark every word, of two that begin at the same place the longer."""
    words, heads = _words()
    at, last = 0, len(value) - _WORD_MIN
    while at <= last:
        if value[at : at + _WORD_MIN] in heads:
            for end in range(min(at + _WORD_MAX, len(value)), at + _WORD_MIN - 1, -1):
                if value[at:end] in words:
                    marked[at:end] = b"\1" * (end - at)
                    at = end - 1
                    break
        at += 1


def _mark_sequences(value: bytes, marked: bytearray) -> None:
    """Mark runs whose neighbours are all one apart or all the same, and values that repeat themselves."""
    start = 0
    for at in range(1, len(value) + 1):
        step = value[at] - value[at - 1] if at < len(value) else 2
        before = value[at - 1] - value[at - 2] if at - start >= 2 else step
        if step not in {-1, 0, 1} or step != before:
            if at - start >= _SEQUENCE:
                marked[start:at] = b"\1" * (at - start)
            start = at if step not in {-1, 0, 1} else at - 1
    _mark_woven(value, marked)
    period = (value + value).find(value, 1)
    if period < len(value) or (len(value) > 8 and len(set(value)) <= 4):
        marked[:] = b"\1" * len(value)


def _mark_woven(value: bytes, marked: bytearray) -> None:
    """Mark two sequences that take turns, such as a1b2c3d4."""
    start = 0
    for at in range(2, len(value) + 1):
        if at == len(value) or abs(value[at] - value[at - 2]) != 1:
            if at - start >= _WOVEN:
                marked[start:at] = b"\1" * (at - start)
            start = at - 1


@cache
def _words() -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return all words, and how they begin; sets are made at once, where an automaton would cost a hook its time."""
    text = Path(__file__).with_name("words.toml").read_bytes()
    words = frozenset(text.split(b'"""')[1].split())
    return words, frozenset(word[:_WORD_MIN] for word in words)
