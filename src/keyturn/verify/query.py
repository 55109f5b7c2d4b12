"""Scope queries: what a caller asks a key to be allowed, e.g. `orders:read AND (orders:write OR admin:all)`.

    query   = all { "OR" all }
    all     = term { "AND" term }            AND binds tighter
    term    = name | "(" query ")"

Keywords are read in any case and need white space or a parenthesis beside them.  A name is a concrete scope:
wildcards belong to what is *granted*.  Size, number of names and nesting are bounded, so a query costs little
however it was written.  Every error is an InputError on the field `scopes` that names the position (from 0).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from keyturn.errors import InputError
from keyturn.kernel.match import check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.kernel.match import Matcher

QUERY_CHARS_MAX = 4096
QUERY_NAMES_MAX = 100
QUERY_DEPTH_MAX = 16
_COMPILED_MAX = 1024
_SHOWN_CHARS = 40

_TOKEN = re.compile(r"[()]|[^\s()]+")
_END = ""

Node = tuple[str, "tuple[Node, ...]"] | str
"""A name, or `("and" | "or", parts)`."""


class Query:
    """A compiled query; build with `compile_query`."""

    __slots__ = ("names", "sole", "text", "tree")

    def __init__(self, text: str, tree: Node, names: tuple[str, ...]) -> None:
        """Hold a parsed tree; `names` in order of appearance."""
        self.text = text
        self.tree = tree
        self.names = names
        self.sole = tree if isinstance(tree, str) else None

    def satisfied_by(self, granted: Matcher) -> bool:
        """Say whether the granted patterns satisfy the query."""
        if self.sole is not None:
            return granted.matches(self.sole)
        return _holds(self.tree, granted.matches)

    def missing(self, granted: Matcher) -> tuple[str, ...]:
        """Return the names asked for that are not granted, in order of appearance."""
        return tuple(name for name in self.names if not granted.matches(name))


def _holds(node: Node, matches: Callable[[str], bool]) -> bool:
    if isinstance(node, str):
        return matches(node)
    keyword, parts = node
    if keyword == "and":
        return all(_holds(part, matches) for part in parts)
    return any(_holds(part, matches) for part in parts)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_query(text: str) -> Query:
    """Parse a query; raises InputError.  The last thousand or so are kept compiled."""
    if len(text) > QUERY_CHARS_MAX:
        message = f"expected a scope query of at most {QUERY_CHARS_MAX} characters, found {len(text)}"
        raise InputError(message, field="scopes")
    parser = _Parser(text)
    return Query(text, parser.parse(), tuple(dict.fromkeys(parser.names)))


class _Parser:
    """Recursive descent over the tokens; depth is bounded by QUERY_DEPTH_MAX."""

    def __init__(self, text: str) -> None:
        self._tokens = [(found.group(), found.start()) for found in _TOKEN.finditer(text)]
        self._tokens.append((_END, len(text)))
        self._at = 0
        self.names: list[str] = []

    def parse(self) -> Node:
        tree = self._any(0)
        if self._tokens[self._at][0] != _END:
            self._refuse("AND, OR or the end")
        return tree

    def _any(self, depth: int) -> Node:
        return self._joined("or", lambda: self._joined("and", lambda: self._term(depth)))

    def _joined(self, keyword: str, part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self._tokens[self._at][0].lower() == keyword:
            self._at += 1
            parts.append(part())
        return parts[0] if len(parts) == 1 else (keyword, tuple(parts))

    def _term(self, depth: int) -> Node:
        token, start = self._tokens[self._at]
        if token == "(":  # noqa: S105 -- a token of the language
            if depth == QUERY_DEPTH_MAX:
                self._refuse(f"at most {QUERY_DEPTH_MAX} nested parentheses")
            self._at += 1
            inner = self._any(depth + 1)
            if self._tokens[self._at][0] != ")":
                self._refuse("AND, OR or )")
            self._at += 1
            return inner
        if token in {_END, ")"} or token.lower() in {"and", "or"}:
            self._refuse("a scope name")
        self._check(token, start)
        self._at += 1
        self.names.append(token)
        if len(self.names) > QUERY_NAMES_MAX:
            message = f"expected at most {QUERY_NAMES_MAX} scope names, found more at position {start}"
            raise InputError(message, field="scopes")
        return token

    def _check(self, token: str, start: int) -> None:
        if "*" in token:
            message = (
                f"expected a scope name at position {start}, found the wildcard {_shown(token)}; "
                "wildcards belong to the scopes granted to a key"
            )
            raise InputError(message, field="scopes")
        try:
            check_name(token)
        except ValueError as error:
            message = f"expected a scope name at position {start}, found {_shown(token)}: {error}"
            raise InputError(message, field="scopes") from None

    def _refuse(self, expected: str) -> NoReturn:
        token, start = self._tokens[self._at]
        found = "the end" if token == _END else _shown(token)
        message = f"expected {expected} at position {start}, found {found}"
        raise InputError(message, field="scopes")


def _shown(token: str) -> str:
    return ascii(token if len(token) <= _SHOWN_CHARS else token[:_SHOWN_CHARS] + "...")
