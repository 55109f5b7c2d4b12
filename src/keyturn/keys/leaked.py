"""Keys that have leaked: which one a value is, by its SHA-256 alone, and the end of one version.

    our own format    the public version id names the version, and the digest that is stored of it is compared
    imported          the digest under each pepper of each keyspace that took keys over is looked up; what is stored
                      as bcrypt or argon2 cannot be compared with a SHA-256 and is not found

A digest that does not fit the version it came with answers as a version that there is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from keyturn.kernel import tokenformat
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.secret import constant_time_equal
from keyturn.keys import rules, store
from keyturn.keys.lifecycle import save
from keyturn.keys.model import ACTIVE, DESTROYED, LIVE_VERSION_STATES, PREVIOUS, SUSPENDED
from keyturn.keys.records import PEPPER
from keyturn.keys.store import MATCHES_AT_ONCE
from keyturn.storage.schema import issued_key, key_version, keyspace
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from sqlalchemy import Connection

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.keys.model import Key
    from keyturn.storage.keyring import Keyring

_FAST: Final = "blake2b"
_SELECTED = (
    select(
        key_version.c.id.label("version"),
        key_version.c.state.label("version_state"),
        key_version.c.digest_kind,
        key_version.c.digest,
        key_version.c.valid_until,
        issued_key.c.id.label("key"),
        issued_key.c.state.label("key_state"),
        issued_key.c.owner,
        issued_key.c.environment,
        issued_key.c.expires_at,
        keyspace.c.id.label("keyspace_id"),
        keyspace.c.name.label("keyspace"),
        keyspace.c.state.label("keyspace_state"),
        keyspace.c.system,
    )
    .join(issued_key, issued_key.c.id == key_version.c.key)
    .join(keyspace, keyspace.c.id == key_version.c.keyspace)
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody says to have found: the SHA-256 of a key, and the version id that stands in it, if one does."""

    sha256: bytes
    version: str | None = None

    def __repr__(self) -> str:
        return f"Claim(version={self.version!r})"


@dataclass(frozen=True, slots=True)
class IssuedVersion:
    """Which version of which key a claim is of, and whether it is let in now."""

    key: str
    version: str
    keyspace: str
    owner: str
    environment: str
    state: str
    """The state of the key, or of the version where that is what keeps it out."""
    works: bool
    system: bool
    """Whether it is a management token."""

    @property
    def resource(self) -> str:
        """The key's name in grants."""
        return f"key/{self.keyspace}/{self.key}"


def find_issued(
    connection: Connection, keyring: Keyring, workspace: str, claims: Sequence[Claim], now: float
) -> dict[int, IssuedVersion]:
    """Return the versions of the workspace that claims are of, by the place of the claim."""
    peppers = _Peppers(connection, keyring, workspace)
    named = {claim.version for claim in claims if claim.version is not None}
    versions = {row.version: row for row in _by_id(connection, workspace, sorted(named))}
    found: dict[int, IssuedVersion] = {}
    unnamed: dict[int, Claim] = {}
    for place, claim in enumerate(claims):
        row = None if claim.version is None else versions.get(claim.version)
        if row is not None and row.digest_kind == _FAST and peppers.fits(row.keyspace_id, claim.sha256, row.digest):
            found[place] = _issued(row, now)
        elif claim.version is None:
            unnamed[place] = claim
    return found | _imported(connection, peppers, workspace, unnamed, now)


def standing_of(
    connection: Connection, workspace: str, version_ids: Sequence[str], now: float
) -> dict[str, IssuedVersion]:
    """Return how versions of the workspace stand now; those that were destroyed are left out."""
    return {row.version: _issued(row, now) for row in _by_id(connection, workspace, version_ids)}


def end_version(op: Operation, key: Key, version_id: str, at: float) -> bool:
    """Let one version of a key end at that time, and no overlap prolong it; False when it ends by then anyway.

    The key stays as it is and can be rotated before and after.
    """
    versions = store.load_versions(op.connection, [key.id])[key.id]
    change = next((rules.end_at(one, at) for one in versions if one.id == version_id), None)
    if change is None:
        return False
    store.change_versions(op.connection, key.id, [change])
    # In the words of a rotation, so that a restored backup is given the same end again.
    detail: dict[str, Detail] = {
        "before": {version_id: PREVIOUS},
        "overlap_seconds": max(0, int(at - op.now)),
        "ends_at": rfc3339(at),
    }
    save(op, Action.KEY_RETIRE, key, detail)
    return True


def key_named(op: Operation, key_id: str, *, system: bool = False) -> Key | None:
    """Return a key of the workspace for a change within this unit; management tokens only with `system`."""
    return store.load_key(op.connection, op.workspace, key_id, system=system, lock=True)


class _Peppers:
    """The peppers of keyspaces, opened once."""

    def __init__(self, connection: Connection, keyring: Keyring, workspace: str) -> None:
        self._connection = connection
        self._keyring = keyring
        self._workspace = workspace
        self._opened: dict[str, list[bytes]] = {}

    def of(self, keyspace_id: str) -> list[bytes]:
        """Return every pepper of a keyspace that still counts."""
        if keyspace_id not in self._opened:
            held = self._keyring.all(self._connection, self._workspace, PEPPER, keyspace_id, keep=True)
            self._opened[keyspace_id] = [one.value for one in held]
        return self._opened[keyspace_id]

    def fits(self, keyspace_id: str, sha256: bytes, digest: bytes) -> bool:
        """Tell whether a stored digest is that of the claim."""
        made = [tokenformat.digest(pepper, sha256) for pepper in self.of(keyspace_id)]
        return sum(constant_time_equal(one, digest) for one in made) > 0


def _by_id(connection: Connection, workspace: str, version_ids: Sequence[str]) -> Iterator[Any]:
    for part in _parts(version_ids):
        yield from connection.execute(
            _SELECTED.where(
                key_version.c.id.in_(part), issued_key.c.workspace == workspace, key_version.c.state != DESTROYED
            )
        ).all()


def _imported(
    connection: Connection, peppers: _Peppers, workspace: str, claims: dict[int, Claim], now: float
) -> dict[int, IssuedVersion]:
    if not claims:
        return {}
    keyspaces = connection.execute(
        select(keyspace.c.id).where(keyspace.c.workspace == workspace, keyspace.c.accepts_foreign, ~keyspace.c.system)
    ).scalars()
    found: dict[int, IssuedVersion] = {}
    for keyspace_id in keyspaces.all():
        places = {
            tokenformat.digest(pepper, claim.sha256): place
            for place, claim in claims.items()
            for pepper in peppers.of(keyspace_id)
        }
        for part in _parts(list(places)):
            rows = connection.execute(
                _SELECTED.where(
                    key_version.c.keyspace == keyspace_id,
                    key_version.c.digest.in_(part),
                    key_version.c.digest_kind == _FAST,
                    key_version.c.foreign,
                    key_version.c.state != DESTROYED,
                )
            ).all()
            for row in rows:
                found.setdefault(places[row.digest], _issued(row, now))
    return found


def _parts(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + MATCHES_AT_ONCE] for start in range(0, len(values), MATCHES_AT_ONCE))


def _issued(row: Any, now: float) -> IssuedVersion:  # noqa: ANN401 -- a row of `_SELECTED`
    ended = row.valid_until is not None and row.valid_until <= now
    expired = row.expires_at is not None and row.expires_at <= now
    admitted = row.version_state in LIVE_VERSION_STATES and row.version_state != SUSPENDED
    works = row.key_state == ACTIVE and row.keyspace_state == ACTIVE and admitted and not ended and not expired
    if row.key_state != ACTIVE:
        state = row.key_state
    elif row.keyspace_state != ACTIVE:
        state = "keyspace_" + row.keyspace_state
    elif not admitted:
        state = row.version_state
    else:
        state = "expired" if ended or expired else ACTIVE
    return IssuedVersion(
        key=row.key,
        version=row.version,
        keyspace=row.keyspace,
        owner=row.owner,
        environment=row.environment,
        state=state,
        works=works,
        system=row.system,
    )
