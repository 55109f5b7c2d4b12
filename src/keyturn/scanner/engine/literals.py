"""Literals that stand in every match of an expression."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, TypeAlias

from keyturn.scanner.engine.syntax import Assertion, Atom, Choice, Group, Repeat, Sequence

if TYPE_CHECKING:
    from keyturn.scanner.engine.syntax import Node

Known: TypeAlias = dict[int, tuple[bytes, ...] | None]
"""What nodes match exactly, by their identity: each is asked about once for each that it stands in."""

LITERALS_MAX: Final = 64
"""More alternatives than these are no help in finding anything."""


def required_literals(node: Node) -> tuple[bytes, ...]:
    """Return literals in lower case of which every match holds one; none when that cannot be told."""
    return _required(node, {})


def _required(node: Node, known: Known) -> tuple[bytes, ...]:
    exact = _exact(node, known)
    if exact is not None:
        return exact if all(exact) else ()
    if isinstance(node, Group):
        return _required(node.body, known)
    if isinstance(node, Repeat):
        return _required(node.body, known) if node.low else ()
    if isinstance(node, Choice):
        found = [_required(branch, known) for branch in node.branches]
        together = tuple(dict.fromkeys(itertools.chain.from_iterable(found)))
        return together if all(found) and len(together) <= LITERALS_MAX else ()
    return _best_of(node.parts, known) if isinstance(node, Sequence) else ()


def shortest(literals: tuple[bytes, ...]) -> int:
    """Return the length of the shortest, which says how much the literals tell; 0 when there are none."""
    return min(map(len, literals), default=0)


def _best_of(parts: tuple[Node, ...], known: Known) -> tuple[bytes, ...]:
    """Join the neighbours that are literal, and choose the literals that tell most."""
    best: tuple[bytes, ...] = ()
    run: tuple[bytes, ...] = (b"",)
    for part in parts:
        exact = _exact(part, known)
        joined = _product(run, exact) if exact is not None else None
        if joined is None:
            best = max(best, run, exact or _required(part, known), key=shortest)
        run = joined if joined is not None else (b"",)
    return max(best, run, key=shortest) if shortest(best) or shortest(run) else ()


def _exact(node: Node, known: Known) -> tuple[bytes, ...] | None:
    """Return everything that the node matches, in lower case; None when that is too much."""
    if isinstance(node, Atom):
        return (node.value,) if node.value else None
    if isinstance(node, Assertion):
        return (b"",)
    if id(node) not in known:
        known[id(node)] = _exact_of_several(node, known)
    return known[id(node)]


def _exact_of_several(node: Node, known: Known) -> tuple[bytes, ...] | None:
    if isinstance(node, Group):
        return _exact(node.body, known)
    if isinstance(node, Choice):
        together: dict[bytes, None] = {}
        for branch in node.branches:
            exact = _exact(branch, known)
            if exact is None:
                return None
            together.update(dict.fromkeys(exact))
        return tuple(together) if len(together) <= LITERALS_MAX else None
    if isinstance(node, Repeat):
        body = None if node.high > LITERALS_MAX else _exact(node.body, known)
        return None if body is None else _times(body, node.low, int(node.high))
    return _times_each(node.parts, known) if isinstance(node, Sequence) else None


def _times_each(parts: tuple[Node, ...], known: Known) -> tuple[bytes, ...] | None:
    run: tuple[bytes, ...] | None = (b"",)
    for part in parts:
        exact = _exact(part, known)
        run = _product(run, exact) if run is not None and exact is not None else None
        if run is None:
            return None
    return run


def _times(body: tuple[bytes, ...], low: int, high: int) -> tuple[bytes, ...] | None:
    runs: dict[bytes, None] = {}
    run: tuple[bytes, ...] | None = (b"",)
    for times in range(high + 1):
        if run is None or len(runs) > LITERALS_MAX:
            return None
        if times >= low:
            runs.update(dict.fromkeys(run))
        run = _product(run, body)
    return tuple(runs)


def _product(left: tuple[bytes, ...], right: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    if len(left) * len(right) > LITERALS_MAX:
        return None
    if len(left) == len(right) == 1:
        return (left[0] + right[0],)
    return tuple(dict.fromkeys(one + other for one in left for other in right))
