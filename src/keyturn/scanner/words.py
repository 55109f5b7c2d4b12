"""An engine that also finds every word that a server may hold as a secret, so that it can be asked about them.

A word is no finding: it becomes one when the server says that it holds it, and is dropped otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.matching import words
from keyturn.scanner.model import Detection
from keyturn.scanner.ruleset.model import HELD_WORD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.scanner.model import Bytes


class WordEngine(Engine):
    """Another engine, and the words of everything that it is given."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:  # it has the parts of the other one
        """Find what this engine finds, and words."""
        self._engine = engine
        self.ruleset = msgspec.structs.replace(engine.ruleset, rules=(*engine.ruleset.rules, HELD_WORD))

    def clone(self) -> WordEngine:
        """Return an engine of the same rules for another thread."""
        return WordEngine(self._engine.clone())

    def detect(
        self, data: Bytes, path: str = "", commit: str = "", passed: Sequence[tuple[int, int]] = ()
    ) -> list[Detection]:
        """Return what the rules find, and after it the words, each with all of it as the secret."""
        found = self._engine.detect(data, path, commit, passed)
        return [*found, *(Detection(HELD_WORD, start, end, start, end) for start, end in words(data))]
