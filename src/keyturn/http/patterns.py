"""What the patterns of fields mean, where nobody would read it off their characters."""

from __future__ import annotations

from typing import Final

_IN_WORDS: Final = {
    r"^[^\s": "one line of printable characters, the first of them no space",
    r"^[^\x00-\x1f": "one line of printable characters",
    r"^[^\x00]": "text without the character NUL",
}


def in_words(pattern: str) -> str | None:
    """Say what a pattern that forbids characters asks for; None for one that tells by itself."""
    return next((said for start, said in _IN_WORDS.items() if pattern.startswith(start)), None)
