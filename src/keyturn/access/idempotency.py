"""Idempotency: a create or rotate that is sent twice with the same `Idempotency-Key` is done once.

    within 10 minutes, same token       the first answer again, the secret included
    later, or by another token          the same entity, without the secret
    same key, another request           IdempotencyError (422)
    same key, still being worked on     InFlightError (409)

    idempotency   id = SHA-256(principal, action, Idempotency-Key) | body_hash | entity | response | created_at

The record commits with the change.  The response is sealed under HKDF(bearer token, Idempotency-Key), so nothing in
the database opens it; `body_hash` is keyed by the Idempotency-Key, so it cannot be guessed at either.
Records are dropped after `RECORD_SECONDS`; from then on the key is unused again.

How a service uses it:

    attempt = Attempt.of(credentials, Action.KEY_ISSUE, idempotency, request)

    def work(op: Operation) -> IssuedKey:
        op.authorise(...)                                          # first, replays included
        return idempotent(op, attempt, Replay(IssuedKey, lambda issued: issued.id, again), lambda: issue(op, request))

    committed = await door.write(credentials, work, attempt=attempt)
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from sqlalchemy import bindparam, delete, select, update

from keyturn.errors import IdempotencyError, InputError
from keyturn.kernel.envelope import EnvelopeError, open_under_phrase, seal_under_phrase
from keyturn.kernel.secret import Secret, constant_time_equal
from keyturn.storage.retention import RECORD_SECONDS, RESPONSE_SECONDS
from keyturn.storage.schema import idempotency
from keyturn.storage.upsert import insert_on_conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Operation
    from keyturn.wire.actions import Action

T = TypeVar("T")

_KEY = re.compile(r"[\x21-\x7e]{1,255}")

# Built once: every create that carries a key runs two of them.
_KEEP = (
    update(idempotency)
    .where(idempotency.c.id == bindparam("record"))
    .values(entity=bindparam("entity"), response=bindparam("response"))
)
_READ = select(*idempotency.c).where(idempotency.c.id == bindparam("record"))
_DROP_OLD = delete(idempotency).where(
    idempotency.c.id == bindparam("record"), idempotency.c.created_at < bindparam("before")
)
_CONTEXT = b"keyturn idempotency response v1\0"


@dataclass(frozen=True, slots=True, repr=False)
class Attempt:
    """One request that carries an `Idempotency-Key`."""

    action: str
    key: str
    body_hash: bytes
    phrase: Secret
    """The bearer token and the Idempotency-Key, joined: what the response is sealed under."""
    mark: bytes
    """What tells attempts in flight apart in this process."""

    @classmethod
    def of(cls, credentials: Credentials, action: Action, key: str | None, *request: object) -> Attempt | None:
        """Describe a request by everything that makes it what it is (path parameters too); None without a key.

        Raises InputError when the key is not 1-255 visible ASCII characters.
        """
        if key is None:
            return None
        if _KEY.fullmatch(key) is None:
            message = "expected an Idempotency-Key of 1-255 visible ASCII characters"
            raise InputError(message, field="Idempotency-Key")
        body = msgspec.json.encode(request, order="deterministic")
        keyed = hashlib.blake2b(body, digest_size=32, key=hashlib.sha256(key.encode()).digest())
        phrase = credentials.token.reveal_bytes() + b"\0" + key.encode()
        mark = hashlib.sha256(str(action).encode() + b"\0" + phrase).digest()
        return cls(str(action), key, keyed.digest(), Secret(phrase), mark)

    def record_id(self, principal: str) -> str:
        """Return the id of the record of this principal's attempt."""
        return hashlib.sha256(f"{principal}\0{self.action}\0{self.key}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Replay(Generic[T]):
    """How an operation's answer is remembered."""

    type: type[T]
    """The response struct, as JSON."""
    entity: Callable[[T], str]
    """The id of what was made, which outlives the response."""
    again: Callable[[str], T]
    """Build the answer from the entity's present state, without its secret; runs in the same unit of work."""


def idempotent(op: Operation, attempt: Attempt | None, replay: Replay[T], run: Callable[[], T]) -> T:
    """Run once per attempt inside the unit of work, else answer what the first run answered.

    Authorise before calling it.  The record is undone with the unit when `run` raises, so a failure may be retried.
    Two nodes that get the same attempt at once take turns: the second waits for the first to commit.
    """
    if attempt is None:
        return run()
    record = attempt.record_id(op.caller.principal)
    if _claim(op.connection, record, attempt, op.now):
        answer = run()
        plain = msgspec.json.encode(answer)
        sealed = seal_under_phrase(attempt.phrase.reveal_bytes(), _CONTEXT + record.encode(), plain)
        op.connection.execute(_KEEP, {"record": record, "entity": replay.entity(answer), "response": sealed})
        return answer
    row = op.connection.execute(_READ, {"record": record}).one()
    if not constant_time_equal(row.body_hash, attempt.body_hash):
        message = "this Idempotency-Key was used before with a different request"
        raise IdempotencyError(message, hint="use a new key for a new request")
    op.unchanged()
    if row.response is not None and op.now < row.created_at + RESPONSE_SECONDS:
        try:
            plain = open_under_phrase(attempt.phrase.reveal_bytes(), _CONTEXT + record.encode(), row.response)
        except EnvelopeError:
            # Another token of the same principal: it may learn what was made, not the secret.
            return replay.again(row.entity)
        return msgspec.json.decode(plain, type=replay.type)
    return replay.again(row.entity)


def _claim(connection: Connection, record: str, attempt: Attempt, now: float) -> bool:
    """Insert the record unless there is one; on PostgreSQL this waits for a node that is inserting the same."""
    connection.execute(_DROP_OLD, {"record": record, "before": now - RECORD_SECONDS})
    done = connection.execute(
        insert_on_conflict(connection, idempotency)
        .values(id=record, body_hash=attempt.body_hash, entity="", response=None, created_at=now)
        .on_conflict_do_nothing()
    )
    return done.rowcount == 1
