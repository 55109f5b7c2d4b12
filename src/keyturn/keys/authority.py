"""Management tokens as they are stored: keys in the keyspace `~system` of each workspace.

    keyspace ~system     prefix kt, tag mgmt; no wildcard matches its name, and no key operation sees its keys
    key tok_…            owner = principal id | scopes = patterns over actions | metadata.resources = patterns, as JSON
    version              one, digested like any other; a token is never rotated, only issued anew and revoked

`SystemTokens` is what `keyturn.access` asks of keys: it proves tokens, makes them, and makes their keyspace.  It does
not ask who may; that is decided by whoever calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from sqlalchemy import bindparam, select

from keyturn.access.caller import TokenOwner
from keyturn.access.ports import IssuedToken
from keyturn.errors import BrokenInvariantError
from keyturn.kernel import tokenformat
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import constant_time_equal
from keyturn.keys import keyspace_store, store
from keyturn.keys.model import ACTIVE, CURRENT, SYSTEM_KEYSPACE, Key, Keyspace, Version
from keyturn.keys.records import PEPPER
from keyturn.storage.schema import issued_key, key_version, keyspace
from keyturn.storage.transaction import ChangeKind, Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

PREFIX: Final = "kt"
TAG: Final = "mgmt"
ENVIRONMENT: Final = "management"
PURPOSE: Final = "management token"
STALE_AFTER_SECONDS: Final = 60.0
_RESOURCES: Final = "resources"

# What an unknown token is compared with, so that it takes as long as a known one.
_NO_PEPPER: Final = bytes(32)
_NO_DIGEST: Final = bytes(32)

_read_texts = msgspec.json.Decoder(tuple[str, ...]).decode
_read_metadata = msgspec.json.Decoder(dict[str, str]).decode


# Built once: every management call begins with it.
_BY_VERSION = (
    select(
        key_version.c.digest,
        key_version.c.pepper,
        key_version.c.state,
        key_version.c.digest_kind,
        key_version.c.keyspace,
        key_version.c.valid_until,
        issued_key.c.id,
        issued_key.c.workspace,
        issued_key.c.owner,
        issued_key.c.state.label("key_state"),
        issued_key.c.not_before,
        issued_key.c.expires_at,
        issued_key.c.scopes_json,
        issued_key.c.metadata_json,
        keyspace.c.state.label("keyspace_state"),
    )
    .join(issued_key, issued_key.c.id == key_version.c.key)
    .join(keyspace, keyspace.c.id == key_version.c.keyspace)
    .where(key_version.c.id == bindparam("version"), keyspace.c.system)
)


class SystemTokens:
    """Proves and makes management tokens; implements the ports of `keyturn.access`."""

    def __init__(self, keyring: Keyring) -> None:
        """Open peppers with this keyring; they are kept in memory, since a number never changes its value."""
        self._keyring = keyring
        self._peppers: dict[tuple[str, int], bytes] = {}

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:
        """Return whose token it is, or None for anything that is not a token valid now; see TokenAuthority."""
        version_id = tokenformat.version_id_of(presented)
        if version_id is None:
            return None
        row = connection.execute(_BY_VERSION, {"version": version_id}).first()
        hashed = tokenformat.sha256(presented)
        if row is None:
            constant_time_equal(tokenformat.digest(_NO_PEPPER, hashed), _NO_DIGEST)
            return None
        pepper = self._pepper(connection, row.workspace, row.keyspace, row.pepper)
        equal = constant_time_equal(tokenformat.digest(pepper, hashed), row.digest)
        if not equal or row.digest_kind != "blake2b":
            return None
        states = (row.state, row.key_state, row.keyspace_state)
        if states != (CURRENT, ACTIVE, ACTIVE) or _outside(row.not_before, row.expires_at, row.valid_until, now):
            return None
        return TokenOwner(
            workspace=row.workspace,
            principal=row.owner,
            token_id=row.id,
            scopes=_read_texts(row.scopes_json),
            resources=resources_of(_read_metadata(row.metadata_json)),
            expires_at=row.expires_at,
        )

    def issue(
        self,
        transaction: Transaction,
        *,
        workspace: str,
        principal: str,
        name: str,
        scopes: Sequence[str],
        resources: Sequence[str],
        expires_at: float | None,
        created_by: str,
        now: float,
    ) -> IssuedToken:
        """Store a token of the principal in the workspace's system keyspace, and append its change row."""
        connection = transaction.connection
        found = keyspace_store.load_keyspace(connection, workspace, SYSTEM_KEYSPACE, system=True)
        if found is None:
            message = f"workspace {workspace} has no system keyspace"
            raise BrokenInvariantError(message)
        minted = tokenformat.mint(found.prefix, found.tag)
        pepper = self._keyring.current(connection, workspace, PEPPER, found.id)
        key = Key(
            id=new_id("tok", now),
            workspace=workspace,
            keyspace=found.id,
            keyspace_name=found.name,
            environment=found.environment,
            name=name,
            owner=principal,
            purpose=PURPOSE,
            state=ACTIVE,
            scopes=tuple(scopes),
            restrictions=None,
            metadata={_RESOURCES: store.to_json(tuple(resources))} if resources else {},
            tags=(),
            not_before=None,
            expires_at=expires_at,
            created_at=now,
            created_by=created_by,
            updated_at=now,
            disabled_at=None,
            revoked_at=None,
            revoke_reason=None,
            revision=1,
        )
        digest = tokenformat.digest(pepper.value, tokenformat.sha256(minted.key.reveal()))
        store.insert_keys(connection, [key])
        store.insert_versions(
            connection,
            [
                Version(
                    id=minted.version_id,
                    key=key.id,
                    keyspace=found.id,
                    number=1,
                    state=CURRENT,
                    digest_kind="blake2b",
                    digest=digest,
                    pepper=pepper.number,
                    foreign=False,
                    lookup=None,
                    created_at=now,
                    created_by=created_by,
                    valid_until=None,
                    retired_at=None,
                )
            ],
        )
        transaction.append(Entry(workspace, ChangeKind.KEY, key.id))
        return IssuedToken(key.id, minted.key)

    def create(self, connection: Connection, workspace: str, now: float) -> str:
        """Store the keyspace `~system` of a new workspace with its pepper, and return its id."""
        made = Keyspace(
            id=new_id("ksp", now),
            workspace=workspace,
            name=SYSTEM_KEYSPACE,
            prefix=PREFIX,
            tag=TAG,
            environment=ENVIRONMENT,
            state=ACTIVE,
            system=True,
            stale_after_seconds=STALE_AFTER_SECONDS,
            stale_after_was=None,
            stale_after_changed_at=None,
            restrictions=None,
            accepts_foreign=False,
            description="Management tokens",
            created_at=now,
            created_by="system",
            revision=1,
        )
        keyspace_store.insert_keyspace(connection, made)
        self._keyring.create(connection, workspace, PEPPER, made.id, now)
        return made.id

    def _pepper(self, connection: Connection, workspace: str, keyspace_id: str, number: int) -> bytes:
        cached = self._peppers.get((keyspace_id, number))
        if cached is not None:
            return cached
        for pepper in self._keyring.all(connection, workspace, PEPPER, keyspace_id):
            self._peppers[keyspace_id, pepper.number] = pepper.value
        return self._peppers.get((keyspace_id, number), _NO_PEPPER)


def resources_of(metadata: dict[str, str]) -> tuple[str, ...]:
    """Return the resource patterns that a token is narrowed to; none narrow nothing."""
    text = metadata.get(_RESOURCES)
    return () if text is None else _read_texts(text)


def _outside(not_before: float | None, expires_at: float | None, valid_until: float | None, now: float) -> bool:
    if not_before is not None and now < not_before:
        return True
    return any(end is not None and now >= end for end in (expires_at, valid_until))
