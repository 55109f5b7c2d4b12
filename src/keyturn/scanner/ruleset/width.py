"""How many bytes a match of a regular expression can be long.

The engine confirms a match in a window before its end, so it has to know how far back one can begin.
What is read here is RE2's syntax; whether an expression is valid is for RE2 to say.
"""

from __future__ import annotations

import re
from typing import Final

UNBOUNDED: Final = float("inf")
_REPEAT: Final = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}")
_FLAGS: Final = re.compile(r"\?P?<\w+>|\?[imsU]*(?:-[imsU]+)?(?P<closed>\))|\?[imsU]*(?:-[imsU]+)?:")
_HEX: Final = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|[0-9A-Fa-f]{2}")
_POSIX: Final = re.compile(r"\[:\^?\w+:\]")
_EMPTY_ESCAPES: Final = frozenset("bBAzQE")


def widest_match(regex: str) -> int | None:
    """Return the most bytes that a match can be long, or None when there is no bound.

    It is never less than the truth for an expression that RE2 takes; one that it does not may get any answer.
    """
    try:
        width = _Expression(regex).alternatives()
    except RecursionError:
        return None
    return None if width == UNBOUNDED else int(width)


class _Expression:
    """One walk over an expression, from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def alternatives(self) -> float:
        """Read up to the end of the group; the widest branch counts."""
        widest = width = 0.0
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] == "|":
                self.at += 1
                widest, width = max(widest, width), 0.0
            else:
                width += self._repeated(self._atom())
        return max(widest, width)

    def _repeated(self, width: float) -> float:
        while self.at < len(self.text):
            if found := _REPEAT.match(self.text, self.at):
                self.at = found.end()
                most = found[1] if found[2] is None else found[3]
                width = width * int(most) if most else _endless(width)
            elif self.text[self.at] in "*+":
                self.at += 1
                width = _endless(width)
            elif self.text[self.at] == "?":
                self.at += 1
            else:
                break
        return width

    def _atom(self) -> float:
        sign = self.text[self.at]
        self.at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == "\\":
            return self._escape()
        return 0 if sign in "^$" else len(sign.encode("utf-8", "replace"))

    def _group(self) -> float:
        if found := _FLAGS.match(self.text, self.at):
            self.at = found.end()
            if found["closed"]:
                return 0
        width = self.alternatives()
        self.at += 1
        return width

    def _class(self) -> float:
        if self.text.startswith("^", self.at):
            self.at += 1
        first = True
        while self.at < len(self.text) and (first or self.text[self.at] != "]"):
            if posix := _POSIX.match(self.text, self.at):
                self.at = posix.end()
            else:
                self.at += 2 if self.text[self.at] == "\\" else 1
            first = False
        self.at += 1
        return 1

    def _escape(self) -> float:
        sign = self.text[self.at : self.at + 1]
        self.at += 1
        if sign == "Q":
            end = self.text.find("\\E", self.at)
            literal = self.text[self.at : end if end >= 0 else len(self.text)]
            self.at += len(literal)
            return len(literal.encode("utf-8", "replace"))
        if sign == "x" and (found := _HEX.match(self.text, self.at)):
            self.at = found.end()
        elif sign in "pP" and self.text.startswith("{", self.at):
            self.at = (self.text.find("}", self.at) + 1) or len(self.text)
        elif sign in "pP":
            self.at += 1
        return 0 if sign in _EMPTY_ESCAPES else 1


def _endless(width: float) -> float:
    return UNBOUNDED if width else 0
