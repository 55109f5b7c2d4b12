"""How random a value looks: what of it words and sequences explain, and how the rest is mixed."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

_SEQUENCE: Final = 4
_LOWER, _UPPER, _DIGIT, _OTHER = range(4)
_CLASSES: Final = bytes(
    _LOWER if 97 <= byte <= 122 else _UPPER if 65 <= byte <= 90 else _DIGIT if 48 <= byte <= 57 else _OTHER
    for byte in range(256)
)

_CONSONANTS: Final = bytes(
    byte if chr(byte).isalpha() and byte < 128 and chr(byte) not in "aeiouyAEIOUY" else 32 for byte in range(256)
)


@dataclass(frozen=True, slots=True)
class Mixture:
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
    _mark_words(value, marked)
    _mark_sequences(value.lower(), marked)
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
    for _, start, end in _words().find_matches_as_indexes(value.lower()):
        marked[start:end] = b"\1" * (end - start)


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
    period = (value + value).find(value, 1)
    if period < len(value) or (len(value) > 8 and len(set(value)) <= 4):
        marked[:] = b"\1" * len(value)


@cache
def _words() -> BytesAhoCorasick:
    import tomllib
    from importlib import resources

    from ahocorasick_rs import BytesAhoCorasick, MatchKind

    text = resources.files(__package__).joinpath("words.toml").read_text("utf-8")
    words = tomllib.loads(text)["words"].encode().split()
    return BytesAhoCorasick(words, matchkind=MatchKind.LeftmostLongest)
