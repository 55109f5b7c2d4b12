"""What a version holds, sealed for its place.

    purpose `secret` | workspace | `<secret id>/<path>` | sequence

A sealed value that is moved to another version, path, secret or workspace does not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.errors import BrokenInvariantError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring
    from keyturn.vault.model import Secret, Version

PURPOSE: Final = "secret"


def seal_fields(
    keyring: Keyring,
    connection: Connection,
    workspace: str,
    secret_id: str,
    path: str,
    sequence: int,
    fields: bytes,
    *,
    now: float,
) -> bytes:
    """Seal the JSON of a version's fields for its place."""
    return keyring.seal(
        connection,
        workspace,
        purpose=PURPOSE,
        path=f"{secret_id}/{path}",
        version=sequence,
        plaintext=fields,
        now=now,
    )


def open_fields(
    keyring: Keyring, connection: Connection, workspace: str, secret_id: str, path: str, sequence: int, sealed: bytes
) -> bytes:
    """Return the JSON of a version's fields; raises IntegrityError when it does not open."""
    return keyring.open(connection, workspace, sealed, purpose=PURPOSE, path=f"{secret_id}/{path}", version=sequence)


def open_version(keyring: Keyring, connection: Connection, secret: Secret, version: Version) -> bytes:
    """Return the JSON of a version's fields; the version must not be destroyed."""
    if version.sealed is None:
        message = f"version {version.sequence} of secret {secret.id} is destroyed and was opened"
        raise BrokenInvariantError(message)
    return open_fields(keyring, connection, secret.workspace, secret.id, secret.path, version.sequence, version.sealed)
