"""How sure a finding is; apart from the other types of leaks, so that a scan loads this alone."""

from __future__ import annotations

from enum import StrEnum


class Certainty(StrEnum):
    """How sure it is that a value is a secret, and whose; only `own` ever starts an action by itself."""

    OWN = "own"
    """A key of Keyturn's format with its check; to a server, exactly this version: what it stores was compared."""
    HELD = "held"
    """Equals what a held secret holds; only a server can tell."""
    PROVIDER = "provider"
    """Looks like a key of a known provider."""
    GENERIC = "generic"
    """Is named and looks like a secret."""
