"""The engine itself: where the rules match in some bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from keyturn.scanner.engine.allowing import Allowing, Subject, one_of
from keyturn.scanner.engine.composing import composed
from keyturn.scanner.engine.confirming import Confirmation
from keyturn.scanner.engine.plans import Way
from keyturn.scanner.model import Detection

if TYPE_CHECKING:
    from collections.abc import Sequence

    import re2

    from keyturn.scanner.engine.finders import Finder
    from keyturn.scanner.model import Bytes
    from keyturn.scanner.ruleset.model import Ruleset


class Engine:
    """Rules, ready to be matched.  One engine serves one thread at a time; `clone` makes another at no cost."""

    __slots__ = ("_allow", "_any_path", "_confirmations", "_finder", "_path_before", "_path_rules", "ruleset")

    def __init__(self, ruleset: Ruleset, finder: Finder) -> None:
        """Hold rules that are known to be right, and what finds them."""
        self.ruleset = ruleset
        self._finder = finder
        self._confirmations: list[Confirmation | None] = [None] * len(ruleset.rules)
        self._allow = tuple(Allowing(allowed, f"allowlist of {ruleset.name}") for allowed in ruleset.allow)
        self._path_rules = [
            at
            for at, (rule, plan) in enumerate(zip(ruleset.rules, finder.plans, strict=True))
            if rule.path and plan.way in {Way.NEVER, Way.PATH}
        ]
        self._any_path: re2._Regexp | None = None
        self._path_before: tuple[bytes, bool] | None = None

    def clone(self) -> Engine:
        """Return an engine of the same rules for another thread."""
        other = object.__new__(Engine)
        other.ruleset, other._finder = self.ruleset, self._finder.clone()
        other._confirmations, other._allow = self._confirmations, self._allow
        other._path_rules, other._any_path = self._path_rules, self._any_path
        other._path_before = None
        return other

    def detect(
        self, data: Bytes, path: str = "", commit: str = "", passed: Sequence[tuple[int, int]] = ()
    ) -> list[Detection]:
        """Return what the rules find, in the order of the secrets' places.

        Detections of one rule do not overlap.  A generic one gives way to a more specific one of the same secret.
        A rule of paths alone finds the document itself, from 0 to 0.
        What matches wholly inside of one of the runs of `passed`, which are in order, is not told of.
        """
        windows = self._finder.windows(data, partial(_may_begin, data, path), passed) if data else ()
        if not windows and not self._path_rules:
            return []
        subject = Subject(data, path, commit)
        found = self._by_path(subject) if self._path_rules else []
        at, applies = -1, False
        for rule, low, high in windows:
            confirmation = self._confirmations[rule] or self._confirmation(rule)
            if rule != at:
                at, applies = rule, confirmation.applies(subject)
            if applies:
                found.extend(confirmation.detections(subject, low, high, self._allow))
        if passed:
            found = [one for one in found if not any(low <= one.start and one.end <= high for low, high in passed)]
        return composed(found, data) if found else found

    def _confirmation(self, rule: int) -> Confirmation:
        made = self._confirmations[rule] = Confirmation(self.ruleset.rules[rule], self._finder.plans[rule])
        return made

    def _by_path(self, subject: Subject) -> list[Detection]:
        """Return what the rules find that are for few paths."""
        found: list[Detection] = []
        if not self._is_for_few(subject.path):
            return found
        for at in self._path_rules:
            confirmation = self._confirmations[at] or self._confirmation(at)
            if not confirmation.applies(subject):
                continue
            if self.ruleset.rules[at].regex:
                found.extend(confirmation.detections(subject, 0, len(subject.data), self._allow))
            elif confirmation.of_path(subject, self._allow):
                found.append(Detection(self.ruleset.rules[at], 0, 0, 0, 0))
        return found

    def _is_for_few(self, path: bytes) -> bool:
        """Tell whether a path is one of those; the versions of a file, and its layers, follow each other."""
        if self._path_before is None or self._path_before[0] != path:
            if self._any_path is None:
                paths = [self.ruleset.rules[at].path for at in self._path_rules]
                self._any_path = one_of(paths, "paths", captures=False)
            self._path_before = path, self._any_path.search(path) is not None
        return self._path_before[1]


def _may_begin(data: Bytes, path: str, at: int) -> bool:
    from keyturn.scanner.engine.generic import may_begin

    return may_begin(data, at, path)
