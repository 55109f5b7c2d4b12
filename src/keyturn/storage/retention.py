"""Retention: what is removed by time, in small units so that nobody waits long for the writer.

    change rows                7 days      a follower that was away longer loads a snapshot
    nodes                      1 day       after their last confirm
    idempotency responses      10 minutes  the sealed secret; the record stays
    idempotency records        7 days      the key is unused again
    login tokens               1 day       after their end, revoked or not
    secret-ids                 7 days      after their end, or made so long ago and revoked
    assertions used once       their end   they would be refused as expired from then on
    reported scans             180 days    all but the last of each source
    wrapped answers            at their expiry, what they hold; the rest 7 days later

Audit leaves, keys and usage are never removed here.  One worker does it, elected by a lease.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from keyturn.storage import election, nodes
from keyturn.storage.change_log import RETENTION_SECONDS, drop_older
from keyturn.storage.schema import idempotency, leak_scan, login_replay, login_secret, login_token, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

ELECTION = "retention"
LEASE_SECONDS = 600.0
RESPONSE_SECONDS = 600.0
RECORD_SECONDS = float(RETENTION_SECONDS)
WRAP_SECONDS = float(RETENTION_SECONDS)
LOGIN_TOKEN_SECONDS = 86_400.0
LOGIN_SECRET_SECONDS = 604_800.0
LEAK_SCAN_SECONDS = 15_552_000.0
UNIT_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Retained:
    """What one run removed; all zero when another worker holds the lease."""

    elected: bool
    changes: int = 0
    nodes: int = 0
    responses: int = 0
    records: int = 0
    login_tokens: int = 0
    login_secrets: int = 0
    login_replays: int = 0
    leak_scans: int = 0
    expired_wraps: int = 0
    wraps: int = 0


async def run_retention(database: Database, node_id: str) -> Retained:
    """Remove what is past its time, unless another worker is elected; run it every few minutes.

    Raises StorageError when the database fails; what was removed before stays removed.
    """
    stood = await database.write(lambda t: election.stand(t.connection, ELECTION, node_id, LEASE_SECONDS, t.now))
    if not stood.value:
        return Retained(elected=False)
    return Retained(
        elected=True,
        changes=await _in_units(database, lambda c, now: drop_older(c, now, limit=UNIT_ROWS)),
        nodes=(await database.write(lambda t: nodes.forget_dead(t.connection, t.now))).value,
        responses=await _in_units(database, _drop_responses),
        records=await _in_units(database, _drop_records),
        login_tokens=await _in_units(database, _drop_login_tokens),
        login_secrets=await _in_units(database, _drop_login_secrets),
        login_replays=await _in_units(database, _drop_login_replays),
        leak_scans=await _in_units(database, _drop_leak_scans),
        expired_wraps=await _in_units(database, _empty_wraps),
        wraps=await _in_units(database, _drop_wraps),
    )


async def _in_units(database: Database, drop: Callable[[Connection, float], int]) -> int:
    def unit(transaction: Transaction) -> int:
        return drop(transaction.connection, transaction.now)

    total = 0
    while True:
        dropped = (await database.write(unit)).value
        total += dropped
        if dropped < UNIT_ROWS:
            return total


def _drop_responses(connection: Connection, now: float) -> int:
    old = (
        select(idempotency.c.id)
        .where(idempotency.c.created_at < now - RESPONSE_SECONDS, idempotency.c.response.is_not(None))
        .limit(UNIT_ROWS)
    )
    return connection.execute(update(idempotency).where(idempotency.c.id.in_(old)).values(response=None)).rowcount


def _drop_records(connection: Connection, now: float) -> int:
    old = select(idempotency.c.id).where(idempotency.c.created_at < now - RECORD_SECONDS).limit(UNIT_ROWS)
    return connection.execute(delete(idempotency).where(idempotency.c.id.in_(old))).rowcount


def _empty_wraps(connection: Connection, now: float) -> int:
    over = select(wrap.c.id).where(wrap.c.expires_at <= now, wrap.c.state == "new").limit(UNIT_ROWS)
    return connection.execute(update(wrap).where(wrap.c.id.in_(over)).values(state="expired", sealed=None)).rowcount


def _drop_wraps(connection: Connection, now: float) -> int:
    old = select(wrap.c.id).where(wrap.c.expires_at < now - WRAP_SECONDS).limit(UNIT_ROWS)
    return connection.execute(delete(wrap).where(wrap.c.id.in_(old))).rowcount


def _drop_login_tokens(connection: Connection, now: float) -> int:
    old = select(login_token.c.id).where(login_token.c.expires_at < now - LOGIN_TOKEN_SECONDS).limit(UNIT_ROWS)
    return connection.execute(delete(login_token).where(login_token.c.id.in_(old))).rowcount


def _drop_login_secrets(connection: Connection, now: float) -> int:
    before = now - LOGIN_SECRET_SECONDS
    revoked = (login_secret.c.state == "revoked") & (login_secret.c.created_at < before)
    old = select(login_secret.c.id).where((login_secret.c.expires_at < before) | revoked).limit(UNIT_ROWS)
    return connection.execute(delete(login_secret).where(login_secret.c.id.in_(old))).rowcount


def _drop_login_replays(connection: Connection, now: float) -> int:
    old = select(login_replay.c.id).where(login_replay.c.expires_at < now).limit(UNIT_ROWS)
    return connection.execute(delete(login_replay).where(login_replay.c.id.in_(old))).rowcount


def _drop_leak_scans(connection: Connection, now: float) -> int:
    later = leak_scan.alias()
    newer = select(later.c.id).where(
        later.c.workspace == leak_scan.c.workspace,
        later.c.source == leak_scan.c.source,
        later.c.reported_at > leak_scan.c.reported_at,
    )
    old = (
        select(leak_scan.c.id).where(leak_scan.c.reported_at < now - LEAK_SCAN_SECONDS, newer.exists()).limit(UNIT_ROWS)
    )
    return connection.execute(delete(leak_scan).where(leak_scan.c.id.in_(old))).rowcount
