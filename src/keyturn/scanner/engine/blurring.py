"""Expressions that match wherever another one does, and take hyperscan far less time to compile.

What costs is what stands between a name and a value: quotes, brackets, a type, a default, in any order.
To find where it is worth looking, one class of all the bytes that may stand there tells as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.scanner.engine.cuts import without_tail
from keyturn.scanner.engine.syntax import Assertion, Atom, Choice, Group, Repeat, Sequence

if TYPE_CHECKING:
    from keyturn.scanner.engine.syntax import Node

VALUE_MIN: Final = 8
"""A class that repeats so often is a value, and stays."""


@dataclass(frozen=True, slots=True)
class _Blur:
    """What a node may match: the inside of a class, and the least bytes of a match."""

    inside: str
    least: int


def blurred(node: Node, *, cut: bool = True) -> Node:
    """Return an expression with a match wherever this one has one.

    With `cut` it may be given to `without_tail`, and what that leaves out of it is the same as of `node`.
    """
    if isinstance(node, Group):
        return Group(node.prefix, blurred(node.body, cut=cut))
    if isinstance(node, Choice):
        return Choice(tuple(blurred(branch, cut=cut) for branch in node.branches))
    if not isinstance(node, Sequence):
        return node
    # Of the parts from here on, `without_tail` may drop some.
    last = range(len(node.parts) - 1, -1, -1)
    end = next((at for at in last if without_tail(node.parts[at])[0]), 0) if cut else None
    parts: list[Node] = []
    run: list[tuple[Node, _Blur]] = []
    for at, part in enumerate(node.parts):
        blur = None if end is not None and at >= end else _blur_of(part)
        if blur is not None:
            run.append((part, blur))
            continue
        parts += _joined(run)
        run.clear()
        parts.append(blurred(part, cut=end is not None and at >= end))
    return Sequence((*parts, *_joined(run)))


def _joined(run: list[tuple[Node, _Blur]]) -> list[Node]:
    inside = "".join(dict.fromkeys(blur.inside for _, blur in run))
    if not inside or (len(run) == 1 and _is_plain(run[0][0])):
        return [part for part, _ in run]
    least = min(1, sum(blur.least for _, blur in run))
    return [Repeat(Atom(f"[{inside}]"), least, math.inf, f"{{{least},}}")]


def _is_plain(node: Node) -> bool:
    return isinstance(node, Atom) or (isinstance(node, Repeat) and isinstance(node.body, Atom))


def _blur_of(node: Node) -> _Blur | None:
    """Return what a part may match; None for what has to stay as it is, as a word that has to be there."""
    if isinstance(node, Assertion) or (isinstance(node, Repeat) and node.low >= VALUE_MIN):
        return None
    return _blur(node, optional=False)


def _blur(node: Node, *, optional: bool) -> _Blur | None:
    if isinstance(node, Atom):
        return _blur_of_atom(node, optional=optional)
    if isinstance(node, Assertion):
        return None if node.text.startswith("(?") else _Blur("", 0)
    if isinstance(node, Group):
        return _blur(node.body, optional=optional) if node.prefix == "(?:" else None
    if isinstance(node, Repeat):
        inner = _blur(node.body, optional=optional or not node.low)
        return None if inner is None else _Blur(inner.inside, inner.least * node.low)
    found = []
    for part in node.parts if isinstance(node, Sequence) else node.branches:
        blur = _blur(part, optional=optional)
        if blur is None:
            return None
        found.append(blur)
    least = [blur.least for blur in found]
    inside = "".join(blur.inside for blur in found)
    return _Blur(inside, sum(least) if isinstance(node, Sequence) else min(least))


def _blur_of_atom(node: Atom, *, optional: bool) -> _Blur | None:
    if node.value:
        both = {node.value, node.value.upper()}
        return _Blur("".join(sorted(f"\\x{one[0]:02x}" for one in both)), 1) if optional else None
    if not node.text.startswith("["):
        return _Blur(node.text, 1) if node.text.startswith("\\") else None
    inside = node.text[1:-1]
    if inside.startswith(("^", "]")):
        return None
    if inside.startswith("-"):
        inside = "\\" + inside
    if inside.endswith("-") and not inside.endswith("\\-"):
        inside = inside[:-1] + "\\-"
    return _Blur(inside, 1)
