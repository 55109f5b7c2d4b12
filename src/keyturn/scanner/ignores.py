"""Comments that accept a finding where it stands.

    token = "…"  # keyturn:allow 6d0c…    on the line of the finding, or on the line before it

The comment names the fingerprint, so it holds for this secret alone: another one on the same line is reported.
The marks of a foreign rule file, such as `gitleaks:allow`, hold for whatever is on their line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyturn.scanner.fingerprints import PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable

ANYTHING: Final = "*"
"""Stands for every fingerprint, in what `allowed_by` returns."""

_COMMENT: Final = rb"keyturn:allow((?:[ ,]+" + PATTERN.encode() + rb"\b)+)"


def allowed_by(line: bytes, line_before: bytes, foreign_marks: Iterable[str] = ()) -> frozenset[str]:
    """Return the fingerprints that comments allow on a line."""
    if any(mark.encode() in line for mark in foreign_marks):
        return frozenset({ANYTHING})
    if b"keyturn:allow" not in line and b"keyturn:allow" not in line_before:
        return frozenset()
    found = (names.split() for text in (line_before, line) for names in re.findall(_COMMENT, text.replace(b",", b" ")))
    return frozenset(one.decode() for names in found for one in names)
