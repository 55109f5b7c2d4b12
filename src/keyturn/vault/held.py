"""Held values that have leaked: which ones have a SHA-256, and whether a current version still holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from keyturn.storage.schema import secret, secret_fingerprint, secret_version
from keyturn.vault.paths import Path
from keyturn.wire.secrets import SecretState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from keyturn.access.caller import Resource
    from keyturn.vault.fingerprints import Fingerprints

_AT_ONCE: Final = 500
_SELECTED = (
    select(
        secret_fingerprint.c.fingerprint,
        secret_fingerprint.c.field,
        secret_fingerprint.c.sequence,
        secret.c.id.label("secret"),
        secret.c.path,
        secret.c.owner,
        secret.c.environment,
        secret.c.current,
        secret.c.expires_at,
        secret.c.deleted_at.label("removed_at"),
        secret_version.c.number,
        secret_version.c.state,
        secret_version.c.delete_at,
        secret_version.c.deleted_at,
    )
    .join(secret, secret.c.id == secret_fingerprint.c.secret)
    .join(
        secret_version,
        (secret_version.c.secret == secret_fingerprint.c.secret)
        & (secret_version.c.sequence == secret_fingerprint.c.sequence),
    )
)
_ORDER = (secret.c.path, secret_fingerprint.c.field, secret_fingerprint.c.sequence.desc())


@dataclass(frozen=True, slots=True)
class HeldValue:
    """Where a value is held."""

    secret: str
    path: str
    field: str
    sequence: int
    owner: str
    environment: str
    state: str
    is_current: bool
    """Whether it is what somebody gets who reads the secret, or will be once it is promoted."""

    @property
    def resource(self) -> Resource:
        """The secret as the resource of a decision."""
        return Path(self.path).resource


def find_held(
    connection: Connection, fingerprints: Fingerprints, workspace: str, digests: Sequence[bytes], now: float
) -> dict[int, tuple[HeldValue, ...]]:
    """Return where values are held by their SHA-256, those in current versions first, by the place of the digest.

    Only values of at least 20 characters can be found; versions that were destroyed hold none.
    """
    places: dict[bytes, list[int]] = {}
    for place, one in enumerate(fingerprints.of_digests(connection, workspace, digests)):
        places.setdefault(one, []).append(place)
    wanted, found = list(places), dict[int, list[HeldValue]]()
    for start in range(0, len(wanted), _AT_ONCE):
        for row in _rows(connection, workspace, wanted[start : start + _AT_ONCE]):
            for place in places[row.fingerprint]:
                found.setdefault(place, []).append(_held(row, now))
    return {place: _current_first(held) for place, held in found.items()}


def held_like(
    connection: Connection, workspace: str, secret_id: str, sequence: int, field: str, now: float
) -> tuple[HeldValue, ...]:
    """Return where the value of one field of a version is held, there and elsewhere; empty when it was destroyed."""
    found = connection.execute(
        select(secret_fingerprint.c.fingerprint).where(
            secret_fingerprint.c.secret == secret_id,
            secret_fingerprint.c.sequence == sequence,
            secret_fingerprint.c.field == field,
        )
    ).scalar()
    if found is None:
        return ()
    return _current_first([_held(row, now) for row in _rows(connection, workspace, [found])])


def _rows(connection: Connection, workspace: str, fingerprints: Sequence[bytes]) -> Sequence[Any]:
    return connection.execute(
        _SELECTED.where(
            secret_fingerprint.c.workspace == workspace,
            secret_fingerprint.c.fingerprint.in_(fingerprints),
            secret_version.c.destroyed_at.is_(None),
        ).order_by(*_ORDER)
    ).all()


def _current_first(held: Iterable[HeldValue]) -> tuple[HeldValue, ...]:
    return tuple(sorted(held, key=lambda one: not one.is_current))


def _held(row: Any, now: float) -> HeldValue:  # noqa: ANN401 -- a row of `_SELECTED`
    deleted = row.deleted_at is not None or (row.delete_at is not None and row.delete_at <= now)
    expired = row.expires_at is not None and row.expires_at <= now
    led = row.number == row.current if row.number is not None else row.state == SecretState.PENDING
    if row.removed_at:
        state = "removed"
    elif deleted:
        state = "deleted"
    else:
        state = "expired" if expired else str(row.state)
    return HeldValue(
        secret=row.secret,
        path=row.path,
        field=row.field,
        sequence=row.sequence,
        owner=row.owner,
        environment=row.environment,
        state=state,
        is_current=led and not row.removed_at and not deleted and not expired,
    )
