"""One-time handover: an answer that one holder of a token may open once.

    kt_wrap_<id><secret><check>      the token is the only credential; `wrp_<id>` names the wrap and opens nothing
    at rest                          a digest under the workspace's `wrap` pepper, and the answer sealed under the token

    wrap -> look up, any number of times -> open, once
                                         -> the time is over

Opening takes the answer and leaves nothing of it in one transaction, before anybody is answered: at most once, never
twice.  When the process dies in between, the answer is gone, and a look-up says that the wrap was opened.

Whoever finds a wrap opened that was meant for them has an alarm: somebody else was first.  It is on record as one.  A
token that is wrong answers like one that never was, and is counted like a bad bearer token; it costs no commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.audit.leaf import Actor, Detail, Leaf
from keyturn.errors import GoneError, IntegrityError, NotFoundError, TooLargeError, not_found
from keyturn.kernel import tokenformat
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.envelope import EnvelopeError, open_under_phrase, seal_under_phrase
from keyturn.kernel.secret import constant_time_equal
from keyturn.storage.transaction import ChangeKind, Entry, RefusedError
from keyturn.vault import wrap_store as store
from keyturn.vault.wrap_store import Wrap
from keyturn.wire.actions import Action
from keyturn.wire.wraps import BYTES_MAX, CreateWrap, WrapCreated, WrapInfo, WrapOpened

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation, UnauthenticatedSink
    from keyturn.audit.leaf import Outcome
    from keyturn.kernel.secret import Secret
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

PREFIX: Final = "kt"
TAG: Final = "wrap"
PEPPER: Final = "wrap"
"""Purpose of the keys that digests are made with."""
CREATION_PATH: Final = "api/v1/wraps"
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bound of an answer of our own: the largest secret, with what its references take in, and what is told of it."""
ALARM: Final = "wrap_used"
ALARM_SECONDS: Final = 60.0
"""One alarm per wrap in this time: whoever has a used token does not buy a commit with each attempt."""
ALARMS_KEPT: Final = 1024

_CONTEXT: Final = b"keyturn wrap v1\0"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who presents a wrap token: nothing is known of them but where the request came from."""

    ip: str | None = None
    request_id: str | None = None


NOBODY: Final = Bearer()


class WrapService:
    """Wraps answers and opens them."""

    def __init__(self, door: Door, keyring: Keyring, unauthenticated: UnauthenticatedSink) -> None:
        """Need the door, the keys of digests, and a place to count bad tokens."""
        self._door = door
        self._database = door.database
        self._keyring = keyring
        self._unauthenticated = unauthenticated
        self._alarmed: dict[str, float] = {}

    async def wrap(
        self,
        credentials: Credentials,
        request: CreateWrap,
        *,
        creation_path: str = CREATION_PATH,
        idempotency: str | None = None,
    ) -> WrapCreated:
        """Wrap what the caller sends; needs `wrap.create`."""
        attempt = Attempt.of(credentials, Action.WRAP_CREATE, idempotency, request)

        def work(op: Operation) -> WrapCreated:
            op.authorise(Action.WRAP_CREATE, Resource("wrap/new"))
            replay = Replay(WrapCreated, lambda made: made.id, lambda made: _again(op, made))
            return idempotent(
                op,
                attempt,
                replay,
                lambda: self.wrap_within(op, creation_path, request.data, request.ttl_seconds, bytes_max=BYTES_MAX),
            )

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def wrap_answer(
        self, credentials: Credentials, creation_path: str, data: dict[str, Any], ttl_seconds: int
    ) -> WrapCreated:
        """Wrap an answer that the caller would have got in the clear; needs no right besides that."""

        def work(op: Operation) -> WrapCreated:
            return self.wrap_within(op, creation_path, data, ttl_seconds)

        return (await self._door.write(credentials, work)).value

    def wrap_within(
        self,
        op: Operation,
        creation_path: str,
        data: dict[str, Any],
        ttl_seconds: int,
        *,
        action: Action = Action.WRAP_CREATE,
        resource: str | None = None,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> WrapCreated:
        """Wrap an answer in the unit of work that makes it, and record it; the caller has authorised that.

        Raises TooLargeError.  Should the unit fail, the token opens nothing.
        """
        token, made = self._store(
            op.transaction, op.workspace, op.caller.principal, creation_path, data, ttl_seconds, bytes_max=bytes_max
        )
        detail: dict[str, Detail] = {"wrap": made.id, "creation_path": creation_path, "ttl_seconds": ttl_seconds}
        op.record(action, resource or f"wrap/{made.id}", kind=ChangeKind.AUDIT, entity="", detail=detail)
        return _created(made, token.reveal())

    async def lookup(self, token: Secret, by: Bearer = NOBODY) -> WrapInfo:
        """Tell what a wrap is without opening it.

        Raises NotFoundError `wrap_unknown`, and GoneError `wrap_used` or `wrap_expired`.
        """
        found = await self._proven(token, by)
        gone = _gone(found, self._database.clock.now())
        if gone is not None:
            raise gone
        return WrapInfo(
            id=found.id,
            creation_path=found.creation_path,
            ttl_seconds=found.ttl_seconds,
            created_at=rfc3339(found.created_at),
            created_by=found.created_by,
            expires_at=rfc3339(found.expires_at),
        )

    async def unwrap(self, token: Secret, by: Bearer = NOBODY) -> WrapOpened:
        """Open a wrap; raises like `lookup`, and puts it on record as an alarm when it was opened before."""
        found = await self._proven(token, by)

        def work(transaction: Transaction) -> dict[str, Any]:
            data = self._take(transaction, found, token, by)
            _append(transaction, found, by, Action.SYSTEM_UNWRAP, {"creation_path": found.creation_path})
            return data

        data = (await self._database.write(work)).value
        return WrapOpened(id=found.id, creation_path=found.creation_path, data=data)

    async def rewrap(self, token: Secret, by: Bearer = NOBODY) -> WrapCreated:
        """Open a wrap and wrap the same anew for the same time, in one transaction; raises like `unwrap`."""
        found = await self._proven(token, by)

        def work(transaction: Transaction) -> WrapCreated:
            data = self._take(transaction, found, token, by)
            new, made = self._store(
                transaction, found.workspace, found.created_by, found.creation_path, data, found.ttl_seconds
            )
            detail: dict[str, Detail] = {"creation_path": found.creation_path, "rewrapped": made.id}
            _append(transaction, found, by, Action.SYSTEM_UNWRAP, detail)
            return _created(made, new.reveal())

        return (await self._database.write(work)).value

    async def _proven(self, token: Secret, by: Bearer) -> Wrap:
        """Return the wrap that a token is for; every other token answers, and costs, the same."""
        presented = token.reveal()
        version_id = tokenformat.version_id_of(presented)
        known = version_id is not None and presented.startswith(f"{PREFIX}_{TAG}_")
        found = None if not known else await self._database.read(lambda c: self._prove(c, f"wrp_{version_id}", token))
        if found is None:
            self._unauthenticated.count(by.ip, self._database.clock.now())
            raise NotFoundError(
                "there is no wrap that this token opens",
                code="wrap_unknown",
                hint="check that the token is complete; wraps are forgotten a week after their time",
            )
        return found

    def _prove(self, connection: Connection, wrap_id: str, token: Secret) -> Wrap | None:
        found = store.load_wrap(connection, wrap_id)
        if found is None:
            return None
        presented = tokenformat.sha256(token.reveal())
        peppers = self._keyring.all(connection, found.workspace, PEPPER, "")
        proven = any(constant_time_equal(tokenformat.digest(one.value, presented), found.digest) for one in peppers)
        return found if proven else None

    def _take(self, transaction: Transaction, found: Wrap, token: Secret, by: Bearer) -> dict[str, Any]:
        """Claim a wrap and open it; what does not open is not claimed either, since the unit is undone."""
        sealed = store.claim(transaction.connection, found.id, transaction.now)
        if sealed is None:
            raise self._refusal(transaction, found, by)
        try:
            plain = open_under_phrase(token.reveal_bytes(), _context(found), sealed)
        except EnvelopeError as error:
            message = f"what wrap {found.id} holds does not open"
            raise IntegrityError(message, hint="the row was moved or altered; restore from a backup") from error
        return msgspec.json.decode(plain, type=dict[str, Any])

    def _refusal(self, transaction: Transaction, proven: Wrap, by: Bearer) -> Exception:
        now = transaction.now
        found = store.load_wrap(transaction.connection, proven.id) or proven
        public = _gone(found, now)
        if public is None:
            return NotFoundError("there is no wrap that this token opens", code="wrap_unknown")
        if found.state != store.USED or now < self._alarmed.get(found.id, 0.0) + ALARM_SECONDS:
            return public
        self._remember_alarm(found.id, now)
        detail: dict[str, Detail] = {"alarm": ALARM, "creation_path": found.creation_path}
        leaf = _leaf(found, by, Action.SYSTEM_ALARM, now, detail, outcome="failed")
        return RefusedError(public, Entry(found.workspace, ChangeKind.AUDIT, "", leaf.row()))

    def _remember_alarm(self, wrap_id: str, now: float) -> None:
        if len(self._alarmed) >= ALARMS_KEPT:
            self._alarmed.pop(next(iter(self._alarmed)))
        self._alarmed[wrap_id] = now

    def _store(
        self,
        transaction: Transaction,
        workspace: str,
        created_by: str,
        creation_path: str,
        data: dict[str, Any],
        ttl_seconds: int,
        *,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> tuple[Secret, Wrap]:
        plain = msgspec.json.encode(data)
        if len(plain) > bytes_max:
            raise TooLargeError(f"the data has {len(plain)} bytes; expected at most {bytes_max}", field="data")
        minted = tokenformat.mint(PREFIX, TAG)
        pepper = self._pepper(transaction, workspace)
        made = Wrap(
            id=f"wrp_{minted.version_id}",
            workspace=workspace,
            digest=tokenformat.digest(pepper, tokenformat.sha256(minted.key.reveal())),
            creation_path=creation_path,
            state=store.NEW,
            ttl_seconds=ttl_seconds,
            created_at=transaction.now,
            created_by=created_by,
            expires_at=transaction.now + ttl_seconds,
        )
        sealed = seal_under_phrase(minted.key.reveal_bytes(), _context(made), plain)
        store.insert_wrap(transaction.connection, made, sealed)
        return minted.key, made

    def _pepper(self, transaction: Transaction, workspace: str) -> bytes:
        for key in self._keyring.all(transaction.connection, workspace, PEPPER, ""):
            if key.state == "current":
                return key.value
        return self._keyring.create(transaction.connection, workspace, PEPPER, "", transaction.now).value


def _context(of: Wrap) -> bytes:
    return _CONTEXT + b"\0".join(part.encode() for part in (of.workspace, of.id, of.creation_path))


def _gone(found: Wrap, now: float) -> GoneError | None:
    if found.state == store.USED:
        return GoneError(
            f"this wrap was opened at {rfc3339(found.used_at or found.created_at)}",
            code="wrap_used",
            hint="if that was not you, somebody else has what was in it: replace that",
        )
    if found.state == store.EXPIRED or now >= found.expires_at:
        lived = now >= found.expires_at
        return GoneError(
            f"this wrap could be opened until {rfc3339(found.expires_at)}"
            if lived
            else "this wrap ended with a restore from a backup, since it may have been opened after that was made",
            code="wrap_expired",
            hint="ask for a new one",
        )
    return None


def _append(transaction: Transaction, of: Wrap, by: Bearer, action: Action, detail: dict[str, Detail]) -> None:
    leaf = _leaf(of, by, action, transaction.now, detail)
    transaction.append(Entry(of.workspace, ChangeKind.AUDIT, "", leaf.row()))


def _leaf(
    of: Wrap, by: Bearer, action: Action, at: float, detail: dict[str, Detail], *, outcome: Outcome = "allowed"
) -> Leaf:
    return Leaf(
        workspace=of.workspace,
        action=action,
        outcome=outcome,
        actor=Actor(of.id, "wrap", of.id),
        resource=f"wrap/{of.id}",
        at=at,
        detail=detail,
        request_id=by.request_id,
        ip=by.ip,
    )


def _created(made: Wrap, token: str | None) -> WrapCreated:
    return WrapCreated(
        id=made.id,
        token=token,
        creation_path=made.creation_path,
        ttl_seconds=made.ttl_seconds,
        created_at=rfc3339(made.created_at),
        expires_at=rfc3339(made.expires_at),
    )


def _again(op: Operation, wrap_id: str) -> WrapCreated:
    found = store.load_wrap(op.connection, wrap_id)
    if found is None:
        raise not_found("wrap", wrap_id)
    return _created(found, None)
