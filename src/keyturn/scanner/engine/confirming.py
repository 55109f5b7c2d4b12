"""Confirmation: what a finder told of, matched by the rule's own expression and weighed by all the rule asks for."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from keyturn.scanner.engine.allowing import Allowing, Subject
from keyturn.scanner.engine.plans import compiled
from keyturn.scanner.engine.searching import Search
from keyturn.scanner.model import Detection
from keyturn.scanner.ruleset.checksums import CHECKSUMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import re2

    from keyturn.scanner.engine.plans import Plan
    from keyturn.scanner.ruleset.model import Rule


class Confirmation:
    """One rule, ready to confirm; it is made when the rule is first told of, since most never are."""

    __slots__ = ("_allow", "_is_barren", "_path", "_search", "_verify", "_weigh", "_words", "rule")

    def __init__(self, rule: Rule, plan: Plan) -> None:
        """Compile the rule's expression, which is known to be right."""
        field = f"rule {rule.id}"
        self.rule = rule
        self._search = Search(rule.regex, plan, field)
        self._path: re2._Regexp | None = compiled(rule.path, field) if rule.path else None
        self._allow = tuple(Allowing(allowed, field) for allowed in rule.allow)
        self._words = tuple(word.encode() for word in rule.keywords)
        self._verify = CHECKSUMS[rule.checksum].verify if rule.checksum else None
        self._weigh: Callable[[Rule, bytes, bytes, str], bool] | None = None
        self._is_barren: Callable[[Rule, str], bool] | None = None
        if rule.generic:
            self._weigh, self._is_barren = _weighing()

    def applies(self, subject: Subject) -> bool:
        """Tell whether the rule is for documents of this path."""
        if self._path is not None and self._path.search(subject.path) is None:
            return False
        return self._is_barren is None or not self._is_barren(self.rule, _text(subject.path))

    def _is_worded(self, subject: Subject, start: int, end: int) -> bool:
        """Tell whether a keyword stands in the match, as in our own rules, or anywhere else in the document."""
        if not self._words:
            return True
        match = bytes(subject.data[start:end]).lower()
        return any(word in match for word in self._words) or subject.holds(self._words)

    def of_path(self, subject: Subject, allow: Iterable[Allowing]) -> bool:
        """Tell whether a rule of paths alone finds this document, to which it applies."""
        return not any(one.allows(subject, (0, 0), b"") for one in (*self._allow, *allow))

    def detections(self, subject: Subject, low: int, high: int, allow: Iterable[Allowing]) -> list[Detection]:
        """Return what the rule finds in a window, in order; what stands around the window counts as context."""
        found = []
        rule = self.rule
        for match in self._search.matches(subject.data, low, high):
            start, end = match.span()
            if start == end:
                continue
            first, last = self._secret_span(match, subject)
            if first < last and self._stands(subject, (start, end), bytes(subject.data[first:last]), allow):
                if not self._is_worded(subject, start, end):
                    return []
                found.append(Detection(rule, start, end, first, last))
        return found

    def _secret_span(self, match: re2._Match, subject: Subject) -> tuple[int, int]:
        group = self.rule.secret_group
        if group:
            span: tuple[int, int] = match.span(group)
            return span
        for number in range(1, self._search.groups + 1):
            start, end = match.span(number)
            if start < end:
                return start, end
        start, end = match.span()
        whole = bytes(subject.data[start:end])
        return start + len(whole) - len(whole.lstrip(b"\n")), end - len(whole) + len(whole.rstrip(b"\n"))

    def _stands(self, subject: Subject, span: tuple[int, int], secret: bytes, allow: Iterable[Allowing]) -> bool:
        rule = self.rule
        if self._verify is not None and not self._verify(secret):
            return False
        if rule.entropy and entropy(secret) <= rule.entropy:
            return False
        if any(allowed.allows(subject, span, secret) for allowed in self._allow):
            return False
        if any(allowed.allows(subject, span, secret) for allowed in allow):
            return False
        if self._weigh is None:
            return True
        return self._weigh(rule, bytes(subject.data[span[0] : span[1]]), secret, _text(subject.path))


def entropy(secret: bytes) -> float:
    """Return the Shannon entropy of some bytes, in bits a byte."""
    size = len(secret)
    return math.log2(size) - sum(n * math.log2(n) for n in Counter(secret).values()) / size


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogatepass")


def _weighing() -> tuple[Callable[[Rule, bytes, bytes, str], bool], Callable[[Rule, str], bool]]:
    from keyturn.scanner.engine.generic import is_barren, weigh

    return weigh, is_barren
