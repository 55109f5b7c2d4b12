"""How far apart the first and the last end of a line can be within a match of a rule.

What is scanned of a file are whole lines.  So a match on one line is whole whatever its length, and one on several
lines is when as many bytes are scanned around its lines as lie between its first and its last end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from keyturn.scanner.engine.syntax import (
    Assertion,
    Atom,
    Choice,
    Group,
    Node,
    NotUnderstoodError,
    Repeat,
    Sequence,
    parse,
)
from keyturn.scanner.ruleset.model import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    import re2

_BEGINNING_MAX = 1100
_DOT_IS_ANY = re.compile(r"\(\?[a-zA-Z]*s")


def bytes_between_line_ends(rule: Rule) -> int:
    """Return the most bytes from before the first to after the last line end in a match; at most the rule's window."""
    try:
        node = parse(rule.regex)
    except NotUnderstoodError:
        return rule.window
    return int(min(_Lines(dot_is_any=_DOT_IS_ANY.search(rule.regex) is not None).reach(node), rule.window))


def beginnings(rules: Iterable[Rule]) -> re2._Regexp:
    """Return an expression that matches, in so many bytes, where any match of some rules begins."""
    from keyturn.scanner.engine.plans import compiled

    begun = "|".join(f"(?:{_beginning_of(rule)})" for rule in rules) or "[^\\x00-\\xff]"
    return compiled(begun, "beginnings of rules", latin=True, captures=False)


def _beginning_of(rule: Rule) -> str:
    try:
        return _beginning(parse(rule.regex))
    except NotUnderstoodError:
        return ""


def _beginning(node: Node) -> str:
    """Return what is at most so many bytes long and begins every match; nothing, which is everywhere, when in doubt."""
    if node.width <= _BEGINNING_MAX:
        return node.text
    if isinstance(node, Group):
        return f"{node.prefix}{_beginning(node.body)})"
    if isinstance(node, Choice):
        return "|".join(map(_beginning, node.branches))
    if not isinstance(node, Sequence):
        return ""
    kept: list[str] = []
    left: float = _BEGINNING_MAX
    for part in node.parts:
        left -= part.width
        if left < 0:
            break
        kept.append(part.text)
    if all(isinstance(part, Assertion) for part in node.parts[: len(kept)]):
        following = node.parts[len(kept)]
        kept.append(_beginning(following) if isinstance(following, Group) else "")
    return "".join(kept)


class _Lines:
    """Answers for one expression."""

    def __init__(self, *, dot_is_any: bool) -> None:
        self._dot_is_any = dot_is_any

    def reach(self, node: Node) -> float:
        if isinstance(node, Group):
            return self.reach(node.body)
        if isinstance(node, Choice):
            return max(self.reach(branch) for branch in node.branches)
        if not isinstance(node, Sequence):
            return node.width if self._may_end_a_line(node) else 0
        parts = list(_flat(node))
        ends = [index for index, part in enumerate(parts) if self._may_end_a_line(part)]
        if not ends:
            return 0
        if ends[0] == ends[-1]:
            return self.reach(parts[ends[0]])
        return sum(part.width for part in parts[ends[0] : ends[-1] + 1])

    def _may_end_a_line(self, node: Node) -> bool:
        if isinstance(node, Group | Repeat):
            return self._may_end_a_line(node.body)
        if isinstance(node, Sequence):
            return any(map(self._may_end_a_line, node.parts))
        if isinstance(node, Choice):
            return any(map(self._may_end_a_line, node.branches))
        return isinstance(node, Atom) and self._matches_a_line_end(node)

    def _matches_a_line_end(self, atom: Atom) -> bool:
        if atom.value:
            return atom.value == b"\n"
        if atom.text == ".":
            return self._dot_is_any
        return _matches_a_line_end(atom.text)


def _flat(node: Node) -> Iterator[Node]:
    if isinstance(node, Sequence):
        for part in node.parts:
            yield from _flat(part)
    elif isinstance(node, Group) and isinstance(node.body, Sequence | Group):
        yield from _flat(node.body)
    else:
        yield node


_known: dict[str, bool] = {}


def _matches_a_line_end(text: str) -> bool:
    known = _known.get(text)
    if known is None:
        import re2

        try:
            options = re2.Options()
            options.encoding = re2.Options.Encoding.LATIN1
            options.log_errors = False
            known = re2.compile(text.encode("latin-1", "replace"), options).fullmatch(b"\n") is not None
        except re2.error:
            known = True
        _known[text] = known
    return known
