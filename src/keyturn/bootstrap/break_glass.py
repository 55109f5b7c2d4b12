"""The way back in when nobody can: an admin token issued from the database itself, with the root key at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keyturn.bootstrap.preparation import open_database, write_token
from keyturn.errors import ConfigError
from keyturn.kernel.clock import Clock
from keyturn.keys.tokens import issue_admin_token
from keyturn.storage.kek import load_provider
from keyturn.storage.keyring import Keyring, wanted_keks
from keyturn.storage.migrate import require_current

if TYPE_CHECKING:
    from pathlib import Path

    from keyturn.access.ports import IssuedToken
    from keyturn.config import Settings
    from keyturn.storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Rescue:
    """What is asked for: a token for whom, until when, and the file it goes to."""

    workspace: str
    expires_in_seconds: int | None = None
    output: Path | None = None


async def break_glass(settings: Settings, wanted: Rescue) -> IssuedToken:
    """Issue an admin token of a workspace, on record in its audit log; a server may be running.

    With `output` the token is written there before COMMIT, to a file of mode 0600: a crash in between leaves a token
    that opens nothing, never one that was issued and is not known.
    Raises ConfigError, KekError, NotFoundError or StorageError.
    """
    database = open_database(settings, Clock())
    await database.open()
    try:
        await database.read(require_current)
        keyring = Keyring(load_provider(settings, create=False, wanted=await database.read(wanted_keks)))
        await database.read(keyring.check)
        return (await database.write(lambda transaction: _issue(transaction, keyring, wanted))).value
    finally:
        await database.close()


def _issue(transaction: Transaction, keyring: Keyring, wanted: Rescue) -> IssuedToken:
    now = transaction.now
    expires_at = None if wanted.expires_in_seconds is None else now + wanted.expires_in_seconds
    issued = issue_admin_token(transaction, keyring, wanted.workspace, now, expires_at=expires_at)
    if wanted.output is not None:
        try:
            write_token(wanted.output, issued.token)
        except OSError as error:
            message = f"the token cannot be written to {wanted.output}: {error.strerror or type(error).__name__}"
            raise ConfigError(message, hint="check the folder, its owner and mode; nothing was issued") from error
    return issued
