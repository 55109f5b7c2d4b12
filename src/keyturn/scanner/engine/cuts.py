"""Expressions that match wherever another one does, and cost less to look for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.scanner.engine.syntax import Assertion, Atom, Choice, Group, Repeat, Sequence

if TYPE_CHECKING:
    from keyturn.scanner.engine.syntax import Node

LOOSE_MIN: Final = 4
"""Counts that differ by less are kept."""


def without_tail(node: Node) -> tuple[str, float]:
    """Return an expression that every match starts with, and how many bytes longer a match can be.

    What may repeat at the end is cut to its least, so that few ends of matches are left to be told.
    """
    if isinstance(node, Repeat):
        if node.low == node.high:
            return node.text, 0
        kept = {0: "", 1: node.body.text}.get(node.low, f"{node.body.text}{{{node.low}}}")
        return kept, (node.high - node.low) * node.body.width if node.body.width else 0
    if isinstance(node, Group):
        kept, dropped = without_tail(node.body)
        return (f"{node.prefix}{kept})" if kept else "", dropped)
    if isinstance(node, Sequence):
        return _without_last_parts(node)
    if isinstance(node, Choice):
        cuts = [without_tail(branch) for branch in node.branches]
        if not all(kept for kept, _ in cuts):
            return "", node.width
        return "|".join(kept for kept, _ in cuts), max(dropped for _, dropped in cuts)
    return node.text, 0


def kept_of_last_group(node: Node) -> int:
    """Return how many bytes `without_tail` keeps of the group that the expression ends with; 0 when that varies."""
    if isinstance(node, Sequence):
        return kept_of_last_group(node.parts[-1]) if node.parts else 0
    if isinstance(node, Choice):
        kept = {kept_of_last_group(branch) for branch in node.branches}
        return kept.pop() if len(kept) == 1 else 0
    if not isinstance(node, Group):
        return 0
    if node.prefix != "(":
        return kept_of_last_group(node.body)
    return node.body.low if isinstance(node.body, Repeat) and isinstance(node.body.body, Atom) else 0


@dataclass(frozen=True, slots=True)
class Head:
    """What may be missing at the start of a match: at most so many bytes of an alphabet, written as a class."""

    alphabet: str
    most: int


def head_of(node: Node) -> Head | None:
    """Return what a match may start with or not, when that is one repeated class and no more."""
    at = _head_at(node)
    if at is None or not isinstance(node, Sequence):
        return None
    head = node.parts[at]
    if not isinstance(head, Repeat) or not isinstance(head.body, Atom) or math.isinf(head.high):
        return None
    flags = "".join(part.text for part in node.parts[:at])
    return Head(flags + head.body.text, int(head.high))


def without_head(node: Node) -> Node:
    """Return the expression without what may be missing at its start: its matches end at the same places."""
    at = _head_at(node)
    if at is None or not isinstance(node, Sequence):
        return node
    return Sequence(node.parts[:at] + node.parts[at + 1 :])


def loosened(node: Node) -> Node:
    """Return an expression that matches at least as much, and need not count how often a class repeats.

    Counting is what makes automata large; who confirms with the expression itself can do without.
    """
    if isinstance(node, Group):
        return Group(node.prefix, loosened(node.body))
    if isinstance(node, Sequence):
        return Sequence(tuple(map(loosened, node.parts)))
    if isinstance(node, Choice):
        return Choice(tuple(map(loosened, node.branches)))
    if not isinstance(node, Repeat):
        return node
    if isinstance(node.body, Atom) and LOOSE_MIN <= node.high - node.low < math.inf:
        return Repeat(node.body, node.low, math.inf, f"{{{node.low},}}")
    return Repeat(loosened(node.body), node.low, node.high, node.suffix)


def without_lead(node: Node) -> Node:
    """Return the expression from its first literal on: whatever matched ends where a match of that ends."""
    if isinstance(node, Group):
        return Group(node.prefix, without_lead(node.body))
    if not isinstance(node, Sequence):
        return node
    kept: list[Node] = []
    for at, part in enumerate(node.parts):
        if isinstance(part, Assertion):
            kept.extend([part] if part.text.startswith("(?") else [])
        elif isinstance(part, Group):
            return Sequence((*kept, without_lead(part), *node.parts[at + 1 :]))
        elif not _is_vague(part):
            return Sequence((*kept, *node.parts[at:]))
    return node


def _is_vague(node: Node) -> bool:
    """Tell whether a node is a class of bytes, repeated or not."""
    return (isinstance(node, Atom) and not node.value) or (isinstance(node, Repeat) and _is_vague(node.body))


def _head_at(node: Node) -> int | None:
    if not isinstance(node, Sequence):
        return None
    for at, part in enumerate(node.parts):
        if isinstance(part, Repeat):
            return None if part.low else at
        if not isinstance(part, Assertion) or not part.text.startswith("(?"):
            return None
    return None


def _without_last_parts(node: Sequence) -> tuple[str, float]:
    parts = list(node.parts)
    dropped: float = 0
    while parts:
        kept, more = without_tail(parts.pop())
        dropped += more
        if kept:
            return "".join(part.text for part in parts) + kept, dropped
    return "", dropped
