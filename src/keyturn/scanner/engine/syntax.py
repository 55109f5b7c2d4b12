"""Regular expressions of RE2's syntax, read as far as the engine has to know them.

`cuts` makes expressions from them that are looked for faster, `literals` says what every match holds.
An expression that is not understood here is still matched, only with less help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

_CLASSES: Final = frozenset("dDsSwWCpP")
_ASSERTIONS: Final = frozenset("bBAz")
_CONTROLS: Final = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_HEX: Final = frozenset("0123456789abcdefABCDEF")


class NotUnderstoodError(ValueError):
    """The expression is RE2's business alone."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One byte, out of one or of several; `value` is the one in lower case, empty when there are several."""

    text: str
    value: bytes = b""

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return 1


@dataclass(frozen=True, slots=True)
class Assertion:
    """What matches between bytes, and flags that are set on the way."""

    text: str

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return 0


@dataclass(frozen=True, slots=True)
class Group:
    """Something in parentheses; `prefix` is the opening one with all that belongs to it."""

    prefix: str
    body: Node

    @property
    def text(self) -> str:
        """Return what it is written as."""
        return f"{self.prefix}{self.body.text})"

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return self.body.width


@dataclass(frozen=True, slots=True)
class Repeat:
    """Something so many times; `high` is infinite when there is no end to it."""

    body: Node
    low: int
    high: float
    suffix: str

    @property
    def text(self) -> str:
        """Return what it is written as."""
        return self.body.text + self.suffix

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return self.body.width * self.high if self.body.width else 0


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]

    @property
    def text(self) -> str:
        """Return what it is written as."""
        return "".join(part.text for part in self.parts)

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return sum(part.width for part in self.parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """One or the other."""

    branches: tuple[Node, ...]

    @property
    def text(self) -> str:
        """Return what it is written as."""
        return "|".join(branch.text for branch in self.branches)

    @property
    def width(self) -> float:
        """Return the most bytes that a match has."""
        return max(branch.width for branch in self.branches)


Node: TypeAlias = Atom | Assertion | Group | Repeat | Sequence | Choice


def parse(expression: str) -> Node:
    """Read an expression that RE2 has accepted; raises NotUnderstoodError.

    Its bytes are characters of Latin-1 here: what is not ASCII is as many atoms as UTF-8 has bytes.
    """
    reader = _Reader(expression.encode().decode("latin-1"))
    try:
        node = reader.choice()
    except RecursionError:
        raise NotUnderstoodError(expression[:80]) from None
    if reader.at < len(reader.text):
        raise NotUnderstoodError(expression)
    return node


class _Reader:
    """Reads an expression from left to right."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def choice(self) -> Node:
        branches = [self._sequence()]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self, count: int = 1) -> str:
        taken = self.text[self.at : self.at + count]
        if len(taken) < count:
            raise NotUnderstoodError(self.text)
        self.at += count
        return taken

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in {"", "|", ")"}:
            parts.extend(self._repeated(one) if last else one for one, last in self._pieces())
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _pieces(self) -> list[tuple[Node, bool]]:
        """Read one atom, or the several of a quotation; the last of them is what a repetition belongs to."""
        if self.text.startswith(r"\Q", self.at):
            end = self.text.find(r"\E", self.at)
            quoted = self.text[self.at + 2 : end if end >= 0 else None]
            self.at = end + 2 if end >= 0 else len(self.text)
            atoms: list[tuple[Node, bool]] = [(_literal(one), False) for one in quoted]
            return [*atoms[:-1], (atoms[-1][0], True)] if atoms else []
        return [(self._atom(), True)]

    def _atom(self) -> Node:
        match self._take():
            case "(":
                return self._group()
            case "[":
                return self._class()
            case ".":
                return Atom(".")
            case "^" | "$" as assertion:
                return Assertion(assertion)
            case "\\":
                return self._escape()
            case one if one in "*+?":
                raise NotUnderstoodError(self.text)
            case one:
                return Atom(one, one.encode("latin-1").lower())

    def _group(self) -> Node:
        prefix = "("
        if self._peek() == "?":
            end = min((at for at in map(self._find, ":)>") if at >= 0), default=-1)
            if end < 0:
                raise NotUnderstoodError(self.text)
            prefix += self._take(end + 1 - self.at)
            if prefix.endswith(")"):
                return Assertion(prefix)
        body = self.choice()
        if self._take() != ")":
            raise NotUnderstoodError(self.text)
        return Group(prefix, body)

    def _find(self, one: str) -> int:
        return self.text.find(one, self.at)

    def _class(self) -> Node:
        start = self.at - 1
        if self._peek() == "^":
            self.at += 1
        first = True
        while (one := self._take()) != "]" or first:
            first = False
            if one == "\\":
                self.at += 1
            elif one == "[" and self._peek() == ":":
                end = self.text.find(":]", self.at)
                self.at = end + 2 if end >= 0 else self.at
        return Atom(self.text[start : self.at])

    def _escape(self) -> Node:
        start = self.at - 1
        one = self._take()
        if one in "pP" and self._peek() == "{":
            self.at = self._find("}") + 1
        elif one in "pP":
            self.at += 1
        if one in _ASSERTIONS:
            return Assertion("\\" + one)
        value = self._code(one)
        written = self.text[start : self.at]
        return Atom(written, bytes([value]).lower() if value is not None else b"")

    def _code(self, one: str) -> int | None:
        """Read the rest of an escape, and return the byte that it stands for, if it is one."""
        if one in _CLASSES:
            return None
        if one == "x" and self._peek() == "{":
            digits = self._take(self._find("}") + 1 - self.at)[1:-1]
            return _byte(digits, 16)
        if one == "x":
            return _byte(self._take(2), 16)
        if one.isdigit():
            digits = one
            while len(digits) < 3 and self._peek() in set("01234567"):
                digits += self._take()
            return _byte(digits, 8)
        if one.isalpha() and one not in _CONTROLS:
            raise NotUnderstoodError(self.text)
        return _CONTROLS.get(one, ord(one))

    def _repeated(self, node: Node) -> Node:
        while (bounds := self._bounds()) is not None:
            low, high, suffix = bounds
            node = Repeat(node, low, high, suffix)
        return node

    def _bounds(self) -> tuple[int, float, str] | None:
        start = self.at
        simple: dict[str, tuple[int, float]] = {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}
        bounds = simple.get(self._peek()) or self._counted()
        if bounds is None:
            return None
        self.at = start + 1 if self.text[start] in simple else self._find("}") + 1
        if self._peek() == "?":
            self.at += 1
        return *bounds, self.text[start : self.at]

    def _counted(self) -> tuple[int, float] | None:
        """Read `{n}`, `{n,}` or `{n,m}`; anything else after a brace is the brace itself."""
        end = self._find("}")
        if self._peek() != "{" or end < 0:
            return None
        low, comma, high = self.text[self.at + 1 : end].partition(",")
        if not _is_number(low) or (high and not _is_number(high)):
            return None
        return int(low), int(high) if high else (math.inf if comma else int(low))


def _is_number(text: str) -> Literal[True, False]:
    return text.isascii() and text.isdigit()


def _literal(one: str) -> Atom:
    return Atom(one if one.isalnum() else "\\" + one, one.encode("latin-1").lower())


def _byte(digits: str, base: int) -> int:
    try:
        value = int(digits, base)
    except ValueError:
        raise NotUnderstoodError(digits) from None
    if value > 0xFF:
        raise NotUnderstoodError(digits)
    return value
