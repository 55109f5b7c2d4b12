"""Keyed digests of login tokens and secret-ids: a key of the workspace, kept in memory once it was opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.kernel import tokenformat
from keyturn.kernel.secret import constant_time_equal

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring

TOKEN: Final = "login-token"  # noqa: S105 -- the purpose of a sealed key
SECRET_ID: Final = "login-secret"  # noqa: S105 -- likewise

# What an unknown secret is compared with, so that it takes as long as a known one.
_NO_PEPPER: Final = bytes(32)
_NO_DIGEST: Final = bytes(32)


class Peppers:
    """Digests what is stored of a credential."""

    def __init__(self, keyring: Keyring, purpose: str) -> None:
        """Use the keys of one purpose."""
        self._keyring = keyring
        self._purpose = purpose
        self._known: dict[str, tuple[bytes, ...]] = {}

    def digest(self, connection: Connection, workspace: str, presented: str, now: float) -> bytes:
        """Digest a new credential in a unit of work; makes the workspace's key when there is none."""
        # Read anew, and not kept in memory: a key that this unit made may still be undone with it.
        held = self._keyring.all(connection, workspace, self._purpose, "")
        using = held[0] if held else self._keyring.create(connection, workspace, self._purpose, "", now)
        return tokenformat.digest(using.value, tokenformat.sha256(presented))

    def matches(self, connection: Connection, workspace: str, presented: str, digest: bytes) -> bool:
        """Tell whether a presented credential is the one whose digest is stored."""
        hashed = tokenformat.sha256(presented)
        found = [
            constant_time_equal(tokenformat.digest(pepper, hashed), digest)
            for pepper in self._of(connection, workspace)
        ]
        return any(found)

    @staticmethod
    def pretend(presented: str) -> None:
        """Take as long as a comparison does."""
        constant_time_equal(tokenformat.digest(_NO_PEPPER, tokenformat.sha256(presented)), _NO_DIGEST)

    def _of(self, connection: Connection, workspace: str) -> tuple[bytes, ...]:
        known = self._known.get(workspace)
        if known is None:
            known = tuple(key.value for key in self._keyring.all(connection, workspace, self._purpose, ""))
            if known:
                self._known[workspace] = known
        return known
