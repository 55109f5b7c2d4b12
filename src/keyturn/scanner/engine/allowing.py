"""Allowlists: what a match is not reported for; see `ruleset.model.Allowlist`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.scanner.engine.plans import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import re2

    from keyturn.scanner.model import Bytes
    from keyturn.scanner.ruleset.model import Allowlist

LINE_MAX: Final = 4096
"""A line is looked at so far on both sides of a match."""
WORDS_FEW: Final = 24
"""So many stopwords are looked for one by one."""


class Subject:
    """What is scanned, and where it is from."""

    __slots__ = ("_lowered", "commit", "data", "path")

    def __init__(self, data: Bytes, path: str, commit: str) -> None:
        self.data = data
        self.path = path.encode("utf-8", "surrogatepass")
        self.commit = commit
        self._lowered: bytes | None = None

    def holds(self, words: tuple[bytes, ...]) -> bool:
        """Tell whether one of these words, which are in lower case, stands anywhere, whatever its case."""
        if self._lowered is None:
            self._lowered = bytes(self.data).lower()
        return any(word in self._lowered for word in words)

    def line(self, start: int, end: int) -> bytes:
        """Return the lines that a match stands in."""
        first = max(0, start - LINE_MAX)
        before = bytes(self.data[first:start])
        after = bytes(self.data[end : end + LINE_MAX])
        stop = after.find(b"\n")
        inside = bytes(self.data[start:end])
        return before[before.rfind(b"\n") + 1 :] + inside + (after if stop < 0 else after[:stop])


class Allowing:
    """One allowlist, ready to be asked; its expressions are compiled when they are first needed."""

    __slots__ = ("_all", "_commits", "_list", "_paths", "_regexes", "_words", "name")

    def __init__(self, allowed: Allowlist, name: str) -> None:
        self.name = name
        self._list = allowed
        self._all = allowed.condition == "all"
        self._commits = frozenset(commit.lower() for commit in allowed.commits)
        self._paths: re2._Regexp | None = None
        self._regexes: re2._Regexp | None = None
        self._words: Callable[[bytes], bool] | None = None

    def allows(self, subject: Subject, span: tuple[int, int], secret: bytes) -> bool:
        """Tell whether a match is one that is not reported; `span` is that of the whole match."""
        allowed = self._list
        checks = []
        if self._commits:
            checks.append(subject.commit.lower() in self._commits)
        if allowed.paths:
            checks.append(self._path_is_listed(subject.path))
        if self._settled(checks):
            return checks[-1]
        if allowed.stopwords:
            checks.append(self._has_stopword(secret))
        if self._settled(checks):
            return checks[-1]
        if allowed.regexes:
            checks.append(self._is_listed(subject, span, secret))
        return bool(checks) and (all(checks) if self._all else any(checks))

    def _settled(self, checks: list[bool]) -> bool:
        """Tell whether what comes next cannot change the answer, which is the last check's."""
        return bool(checks) and checks[-1] is not self._all

    def _path_is_listed(self, path: bytes) -> bool:
        if self._paths is None:
            self._paths = one_of(self._list.paths, self.name)
        return bool(path) and self._paths.search(path) is not None

    def _is_listed(self, subject: Subject, span: tuple[int, int], secret: bytes) -> bool:
        if self._regexes is None:
            self._regexes = one_of(self._list.regexes, self.name)
        target = secret
        if self._list.target == "match":
            target = bytes(subject.data[span[0] : span[1]])
        elif self._list.target == "line":
            target = subject.line(*span)
        return self._regexes.search(target) is not None

    def _has_stopword(self, secret: bytes) -> bool:
        if self._words is None:
            self._words = _word_finder([word.lower().encode() for word in self._list.stopwords if word])
        return self._words(secret.lower())


def one_of(expressions: Sequence[str], name: str, *, captures: bool = True) -> re2._Regexp:
    """Compile expressions that are known to be right into one that any of them matches."""
    return compiled("|".join(f"(?:{expression})" for expression in expressions), name, captures=captures)


def _word_finder(words: list[bytes]) -> Callable[[bytes], bool]:
    if len(words) <= WORDS_FEW:
        return lambda secret: any(word in secret for word in words)
    import ahocorasick_rs

    automaton = ahocorasick_rs.BytesAhoCorasick(words)
    return lambda secret: bool(automaton.find_matches_as_indexes(secret))
