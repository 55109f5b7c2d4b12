"""Fingerprints: a finding's name that holds its secret's content, and neither its place nor the secret.

    fingerprint  =  hex( BLAKE2b-160( key, length of family | family | secret ) )

The key is a constant when there is nothing else, and the salt of the baseline when there is one.
With a key file as well nobody can test guesses of a weak secret against a published fingerprint.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from keyturn.scanner.ruleset.model import Rule

PATTERN: Final = "[0-9a-f]{40}"
SALT_BYTES: Final = 16

_DOMAIN: Final = b"keyturn scan fingerprint v1"
_BYTES: Final = 20


@final
class Fingerprints:
    """Makes fingerprints under one key."""

    def __init__(self, salt: bytes = b"", secret_key: bytes = b"") -> None:
        """Derive the key from a baseline's salt and from what a key file holds; both may be empty."""
        seed = hashlib.blake2b(secret_key, digest_size=32, person=b"scan key file").digest()
        self._key = hashlib.blake2b(_DOMAIN + salt, key=seed, digest_size=32).digest()

    def of(self, rule: Rule, secret: bytes) -> str:
        """Return the fingerprint of a secret that a rule found; rules of one family give the same."""
        family = (rule.family or rule.id).encode()
        message = len(family).to_bytes(4, "big") + family + secret
        return hashlib.blake2b(message, key=self._key, digest_size=_BYTES).hexdigest()
