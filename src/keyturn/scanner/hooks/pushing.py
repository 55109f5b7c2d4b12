"""What a push changes: the lines that git gives a hook on standard input.

    pre-receive    <old> <new> <ref>
    pre-push       <local ref> <local> <remote ref> <remote>

An object name of zeros stands for none: the ref is made, or deleted.  Source: githooks(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from keyturn.errors import InputError

REFS_MAX: Final = 100_000

_name: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}").fullmatch


@dataclass(frozen=True, slots=True)
class RefChange:
    """A ref, what it named before and what it is to name; empty where there is none."""

    ref: str
    old: str
    new: str


def read_received(text: str) -> list[RefChange]:
    """Read the lines of `pre-receive`; raises InputError that names the line."""
    return [RefChange(ref, _oid(old, number), _oid(new, number)) for number, (old, new, ref) in _lines(text, 3)]


def read_pushed(text: str) -> list[RefChange]:
    """Read the lines of `pre-push`; raises InputError that names the line."""
    return [
        RefChange(ref, _oid(remote, number), _oid(local, number)) for number, (_, local, ref, remote) in _lines(text, 4)
    ]


def new_objects(changes: list[RefChange]) -> tuple[str, ...]:
    """Return what the refs are to name, each once."""
    return tuple(dict.fromkeys(one.new for one in changes if one.new))


def new_names(changes: list[RefChange]) -> tuple[str, ...]:
    """Return the refs that are to name something."""
    return tuple(one.ref for one in changes if one.new)


def _lines(text: str, count: int) -> list[tuple[int, list[str]]]:
    # A ref holds no space: git-check-ref-format(1).
    lines = [line for line in text.split("\n") if line]
    if len(lines) > REFS_MAX:
        raise InputError(f"expected at most {REFS_MAX} refs, found {len(lines)}", field="stdin")
    split = [(number, line.split(" ")) for number, line in enumerate(lines, 1)]
    for number, words in split:
        if len(words) != count:
            raise InputError(f"line {number}: expected {count} words, found {len(words)}", field="stdin")
    return split


def _oid(text: str, number: int) -> str:
    if _name(text) is None:
        raise InputError(f"line {number}: expected an object name", field="stdin")
    return "" if set(text) == {"0"} else text
