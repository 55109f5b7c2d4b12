"""The keyring: workspace keys under the KEK, and every other server key sealed under its workspace key.

    KEK --AES-KWP--> workspace key --envelope--> pepper | audit signing key | HMAC key | ...

Keys of one purpose and path form a list: the newest (`current`) seals or hashes, the others still open, and one
is `retired` only when nothing refers to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, func, insert, select, update

from keyturn.errors import BrokenInvariantError, DestroyedError, IntegrityError, KekError, UnavailableError
from keyturn.kernel import envelope
from keyturn.kernel.ids import new_id
from keyturn.storage.schema import fact, sealed_key, workspace_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from sqlalchemy import Connection

    from keyturn.storage.kek import KekProvider, Wrapped

OPEN: Final = "open"
DESTROYED: Final = "destroyed"
RETIRED: Final = "retired_root_key:"
"""Begins the names of the facts that say which root keys were retired."""

KEPT_MAX: Final = 1024
"""How many opened server keys are kept at most; past it, they are opened again when needed."""

DATA_KEYS_MAX: Final = 8192
"""How many unwrapped data keys are kept with a workspace key at most; past it, they are unwrapped when needed."""

# Built once: whatever is sealed or opened runs some of them.
_NEWEST = (
    select(workspace_key.c.id)
    .where(workspace_key.c.workspace == bindparam("of"), workspace_key.c.state == OPEN)
    .order_by(workspace_key.c.created_at.desc(), workspace_key.c.id.desc())
    .limit(1)
)
_WORKSPACE_KEY = select(workspace_key).where(workspace_key.c.id == bindparam("key"))
_NAMED = and_(
    sealed_key.c.workspace == bindparam("of"),
    sealed_key.c.purpose == bindparam("what"),
    sealed_key.c.path == bindparam("where"),
)
_HIGHEST = select(func.max(sealed_key.c.number)).where(_NAMED)
_ALL = select(sealed_key).where(_NAMED, sealed_key.c.state != "retired").order_by(sealed_key.c.number.desc())
_SUCCEED = update(sealed_key).where(_NAMED, sealed_key.c.state == "current").values(state="previous")
_INSERT = insert(sealed_key)
_RETIRE = (
    update(sealed_key)
    .where(_NAMED, sealed_key.c.number == bindparam("which"), sealed_key.c.state == "previous")
    .values(state="retired")
)
_PREVIOUS = select(sealed_key.c.number).where(_NAMED, sealed_key.c.state == "previous").order_by(sealed_key.c.number)
_ERASE = update(sealed_key).where(_NAMED, sealed_key.c.state == "previous").values(state="retired", sealed=b"")


@dataclass(frozen=True, slots=True, repr=False)
class OpenedKey:
    """A server key in the clear; its repr shows the id only."""

    id: str
    number: int
    state: str
    value: bytes

    def __repr__(self) -> str:
        """Name the key, not its value."""
        return f"OpenedKey({self.id!r}, number={self.number}, state={self.state!r})"


def wanted_keks(connection: Connection) -> list[str]:
    """Return the ids of the root keys that the data needs, the newest last; empty when nothing is sealed yet."""
    rows = connection.execute(
        select(workspace_key.c.kek_id, func.max(workspace_key.c.created_at))
        .where(workspace_key.c.state == OPEN)
        .group_by(workspace_key.c.kek_id)
        .order_by(func.max(workspace_key.c.created_at), workspace_key.c.kek_id)
    ).all()
    return [row.kek_id for row in rows]


def require_in_use(connection: Connection, kek_id: str) -> None:
    """Refuse a root key that was retired: nothing may be wrapped under it any more.  Raises KekError."""
    if connection.execute(select(fact.c.name).where(fact.c.name == f"{RETIRED}{kek_id}")).first() is not None:
        message = f"root key {kek_id} was retired, and seals on this server"
        raise KekError(message, hint="give this server the newer root key that the others have, first in the list")


class _WorkspaceKey:
    """A workspace key in memory, with data keys that were unwrapped under it.

    A data key gives whoever reads this memory nothing that the workspace key beside it does not give.  Both are
    forgotten as one: who still opens something with what was forgotten keeps nothing of it for the next.
    """

    __slots__ = ("_data_keys", "value")

    def __init__(self, value: bytes) -> None:
        self.value = value
        self._data_keys: dict[bytes, AESGCM] = {}

    def data_cipher(self, wrapped: bytes) -> AESGCM:
        """Return a data key, unwrapped; raises EnvelopeError when it does not open."""
        cipher = self._data_keys.get(wrapped)
        if cipher is None:
            cipher = envelope.data_cipher(self.value, wrapped)
            if len(self._data_keys) >= DATA_KEYS_MAX:
                self._data_keys.clear()
            self._data_keys[wrapped] = cipher
        return cipher


class Keyring:
    """Opens and seals server keys; unwrapped workspace keys are kept in memory, with data keys under them."""

    def __init__(self, provider: KekProvider) -> None:
        """Use the root keys of a provider, which may be a list of several."""
        self.provider = provider
        self._workspace_keys: dict[str, _WorkspaceKey] = {}
        self._kept: dict[tuple[str, str, str, int, bytes], bytes] = {}

    def check(self, connection: Connection) -> None:
        """Refuse to go on unless the root keys that the data wants are given and open it.

        Every workspace key is opened, but under a root key that asks a service only the newest is: the others are
        when they are needed.  Raises KekError naming the id that is wanted.
        """
        rows = connection.execute(
            select(workspace_key.c.id, workspace_key.c.kek_id, workspace_key.c.wrapped)
            .where(workspace_key.c.state == OPEN)
            .order_by(workspace_key.c.created_at.desc(), workspace_key.c.id.desc())
        ).all()
        proven: set[str] = set()
        for row in rows:
            if row.kek_id in proven and self.provider.asks_a_service(row.kek_id):
                continue
            try:
                self._workspace_keys[row.id] = _WorkspaceKey(self.provider.unwrap(row.kek_id, row.wrapped))
            except UnavailableError as error:
                raise KekError(error.message, hint=error.hint, internal=error.internal) from error
            proven.add(row.kek_id)

    def create_workspace_key(
        self, connection: Connection, workspace: str, now: float, made: Wrapped | None = None
    ) -> str:
        """Store a new workspace key; it becomes the one that seals.  Returns its id.

        `made` is what `wrapped_key` gave before the transaction, so that no service is asked within.
        Raises KekError when the root key was retired meanwhile, UnavailableError when its service is out of reach.
        """
        key_id = new_id("wsk", now)
        made = made or self.wrapped_key()
        require_in_use(connection, made.kek_id)
        connection.execute(
            insert(workspace_key).values(
                id=key_id, workspace=workspace, kek_id=made.kek_id, wrapped=made.wrapped, created_at=now, state=OPEN
            )
        )
        return key_id

    def wrapped_key(self) -> Wrapped:
        """Make a new workspace key, wrapped; may ask a service."""
        return self.provider.wrap(envelope.new_key())

    def newest(self, connection: Connection, workspace: str) -> str | None:
        """Return the id of the workspace key that seals; None when there is none yet."""
        return connection.execute(_NEWEST, {"of": workspace}).scalar()

    def forget(self, key_ids: Iterable[str]) -> None:
        """Drop unwrapped workspace keys from memory, with all that was opened and kept.

        Those that still exist are unwrapped again when needed.
        """
        self._kept.clear()
        for key_id in key_ids:
            self._workspace_keys.pop(key_id, None)

    def seal(
        self,
        connection: Connection,
        workspace: str,
        *,
        purpose: str,
        path: str,
        version: int,
        plaintext: bytes,
        now: float,
    ) -> bytes:
        """Seal a value for one place under the workspace's newest key; makes that key if there is none.

        It opens only in the same workspace, with the same purpose, path and version.
        """
        using = self._sealing_key(connection, workspace, now)
        return envelope.seal(
            self._workspace_key(connection, using).value,
            using,
            purpose=purpose,
            workspace=workspace,
            path=path,
            version=version,
            plaintext=plaintext,
        )

    def open(
        self, connection: Connection, workspace: str, blob: bytes, *, purpose: str, path: str, version: int
    ) -> bytes:
        """Open a value sealed for this place.

        Raises IntegrityError when it was altered or belongs elsewhere, DestroyedError when its workspace key is no
        more, KekError when its root key is another, UnavailableError when a service that keeps it is out of reach.
        """
        try:
            header = envelope.header(blob)
            cipher = self._workspace_key(connection, header.workspace_key_id).data_cipher(header.wrapped)
            return envelope.open_under(cipher, blob, purpose=purpose, workspace=workspace, path=path, version=version)
        except envelope.EnvelopeError as error:
            message = f"the sealed {purpose} {version} of {path!r} does not open"
            raise IntegrityError(message, hint="the row was moved or altered; restore from a backup") from error

    def create(
        self, connection: Connection, workspace: str, purpose: str, path: str, now: float, value: bytes | None = None
    ) -> OpenedKey:
        """Seal a new key (random unless given) as the current one; the one before becomes `previous`."""
        named = _named(workspace, purpose, path)
        highest = connection.execute(_HIGHEST, named).scalar()
        number = (highest or 0) + 1
        value = envelope.new_key() if value is None else value
        key_id = new_id("sky", now)
        sealed = self.seal(connection, workspace, purpose=purpose, path=path, version=number, plaintext=value, now=now)
        connection.execute(_SUCCEED, named)
        connection.execute(
            _INSERT,
            {
                "id": key_id,
                "workspace": workspace,
                "purpose": purpose,
                "path": path,
                "number": number,
                "state": "current",
                "sealed": sealed,
                "created_at": now,
            },
        )
        return OpenedKey(key_id, number, "current", value)

    def all(
        self, connection: Connection, workspace: str, purpose: str, path: str, *, keep: bool = False
    ) -> list[OpenedKey]:
        """Open every key of a purpose and path that is not retired, newest first.

        Which they are is read each time.  With `keep` what was opened stays in memory until `forget`, for the same
        sealed value in the same place.
        """
        opened: list[OpenedKey] = []
        for row in connection.execute(_ALL, _named(workspace, purpose, path)).all():
            place = (workspace, purpose, path, row.number, row.sealed)
            value = self._kept.get(place) if keep else None
            if value is None:
                value = self.open(connection, workspace, row.sealed, purpose=purpose, path=path, version=row.number)
                if keep:
                    self._keep(place, value)
            opened.append(OpenedKey(row.id, row.number, row.state, value))
        return opened

    def current(self, connection: Connection, workspace: str, purpose: str, path: str) -> OpenedKey:
        """Open the current key; raises BrokenInvariantError when there is none."""
        for key in self.all(connection, workspace, purpose, path):
            if key.state == "current":
                return key
        message = f"no current {purpose} key for {path!r}"
        raise BrokenInvariantError(message)

    def retire(self, connection: Connection, workspace: str, purpose: str, path: str, number: int) -> bool:
        """Retire a previous key; the caller has made sure that nothing refers to it.  False if it was not previous."""
        done = connection.execute(_RETIRE, _named(workspace, purpose, path) | {"which": number})
        return done.rowcount == 1

    def erase(self, connection: Connection, workspace: str, purpose: str, path: str) -> list[int]:
        """Retire every previous key and overwrite what was sealed: for keys that only made, and open nothing.

        Returns their numbers.
        """
        named = _named(workspace, purpose, path)
        numbers = list(connection.execute(_PREVIOUS, named).scalars())
        connection.execute(_ERASE, named)
        return numbers

    def _keep(self, place: tuple[str, str, str, int, bytes], value: bytes) -> None:
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[place] = value

    def _sealing_key(self, connection: Connection, workspace: str, now: float) -> str:
        return self.newest(connection, workspace) or self.create_workspace_key(connection, workspace, now)

    def _workspace_key(self, connection: Connection, key_id: str) -> _WorkspaceKey:
        cached = self._workspace_keys.get(key_id)
        if cached is not None:
            return cached
        row = connection.execute(_WORKSPACE_KEY, {"key": key_id}).first()
        if row is None:
            message = f"workspace key {key_id} is not in the database"
            raise IntegrityError(message, hint="restore it from a backup")
        if row.state != OPEN:
            raise DestroyedError(
                f"workspace key {key_id} was destroyed, and with it every value sealed under it",
                hint="nothing brings such a value back but a backup made before",
            )
        held = self._workspace_keys[key_id] = _WorkspaceKey(self.provider.unwrap(row.kek_id, row.wrapped))
        return held


def _named(workspace: str, purpose: str, path: str) -> dict[str, str | int]:
    return {"of": workspace, "what": purpose, "where": path}
