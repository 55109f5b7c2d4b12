"""A batch of reads inside its unit of work: many callers, one transaction, a leaf for each access.

    for each: authenticate -> authorise -> guards -> load -> open -> references (each an access of its own) -> leaf

A refusal, a secret that is not there and a value that does not open are answers, each with its leaf; none undoes what
the others of the batch get.  An error of the database fails all of them, and then nothing is on record and nothing is
let out.  Values are opened here, so that the leaf can say whether they did, and leave after the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.access.door import Operation, unauthenticated
from keyturn.audit.leaf import DRAWN, Detail, Leaf
from keyturn.errors import KeyturnError, NotFoundError, not_found
from keyturn.kernel.secret import random_base62
from keyturn.storage.transaction import ChangeKind, Entry, RefusedError
from keyturn.vault import answers, sealing
from keyturn.vault.consumers import Read, Tally, agent_of, network_of
from keyturn.vault.gone import VersionGoneError
from keyturn.vault.paths import parse_path
from keyturn.vault.resolving import Resolver, may_refer
from keyturn.vault.rules import reading_action

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from keyturn.access.caller import Credentials
    from keyturn.audit.model import Outcome
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction
    from keyturn.vault.batch_state import BatchState, Held, Which
    from keyturn.vault.consumers import Consumers
    from keyturn.vault.model import Secret, Version
    from keyturn.vault.paths import Path
    from keyturn.vault.reading_ports import GuardedPaths

CURRENT: Final[Which] = (None, None)
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True, eq=False)
class Ask:
    """One read that waits for its batch."""

    credentials: Credentials
    path: Path
    which: Which
    resolve: bool
    user_agent: str | None
    done: asyncio.Future[Opened]
    asked_at: float


class Opened(msgspec.Struct, frozen=True):
    """A version with what it holds, as JSON; its read is on record once the batch has committed."""

    secret: Secret
    version: Version
    fields: bytes

    def __repr__(self) -> str:
        """Name the version, not what it holds."""
        return f"Opened({self.secret.id!r}, sequence={self.version.sequence})"


class Answer(msgspec.Struct, frozen=True):
    """How one read of a batch ended; `outcome` is a label for metrics."""

    ask: Ask
    opened: Opened | None
    error: KeyturnError | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Answers:
    """How all reads of a batch ended, and what consumers received."""

    answers: list[Answer]
    reads: list[Read]


class BatchUnit:
    """Decides the reads of a batch; see the module."""

    def __init__(self, state: BatchState, keyring: Keyring, approvals: GuardedPaths, consumers: Consumers) -> None:
        """Use what is known from batch to batch."""
        self._state = state
        self._keyring = keyring
        self._approvals = approvals
        self._consumers = consumers
        self._drawn = _Drawn()

    def run(self, transaction: Transaction, asks: Sequence[Ask]) -> Answers:
        """Decide every read and put it on record."""
        self._state.begin(transaction)
        reads: list[Read] = []
        self._drawn = _Drawn(len(asks))
        # Who has given up meanwhile gets no value, and leaves no trace of one.
        found = [self._answer(transaction, ask, reads) for ask in asks if not ask.done.done()]
        self._consumers.write_first(transaction.connection, reads)
        return Answers(found, reads)

    def _answer(self, transaction: Transaction, ask: Ask, reads: list[Read]) -> Answer:
        try:
            caller = self._state.callers.find(transaction.connection, ask.credentials, transaction.now)
        except KeyturnError as error:
            # Such as a pepper that does not open: nobody is known who a leaf could name.
            return Answer(ask, None, error, "error")
        if caller is None:
            return Answer(ask, None, unauthenticated(), "unauthenticated")
        op = Operation(transaction.connection, transaction.now, caller, transaction)
        access = _Access(self._state, self._keyring, self._approvals, op, ask, self._drawn)
        try:
            opened = access.root()
        except RefusedError as refused:
            transaction.append(refused.refusal)
            return Answer(ask, None, refused.public, "denied")
        except KeyturnError as error:
            access.record("failed", ask.path.text, ask.path.resource.name, {"reason": error.code})
            return Answer(ask, None, error, "failed")
        reads.extend(access.reads)
        return Answer(ask, opened, None, "allowed")


class _Drawn:
    """Random characters for the leaves of one batch, drawn at once: each draw would let another thread in."""

    __slots__ = ("_at", "_text")

    def __init__(self, leaves: int = 0) -> None:
        self._text = random_base62(DRAWN * leaves) if leaves else ""
        self._at = 0

    def next(self) -> str | None:
        """Return those of the next leaf, None when there are no more."""
        found = self._text[self._at : self._at + DRAWN]
        self._at += DRAWN
        return found if len(found) == DRAWN else None


class _Access:
    """One read: its root and the targets of its references, by one caller."""

    __slots__ = ("_approvals", "_ask", "_drawn", "_keyring", "_op", "_state", "action", "reads")

    def __init__(
        self, state: BatchState, keyring: Keyring, approvals: GuardedPaths, op: Operation, ask: Ask, drawn: _Drawn
    ) -> None:
        self._state = state
        self._keyring = keyring
        self._approvals = approvals
        self._op = op
        self._ask = ask
        self._drawn = drawn
        self.action = reading_action(op.caller.kind)
        self.reads: list[Read] = []

    def root(self) -> Opened:
        """Open what was asked for; raises the refusal, or the error, that the caller of this puts on record."""
        ask = self._ask
        held, version, fields = self._open(ask.path, ask.which)
        detail: dict[str, Detail] = {}
        if ask.resolve and may_refer(fields):
            resolver = Resolver(self._target)
            fields = msgspec.json.encode(resolver.resolve(_decode(fields)))
            if resolver.targets:
                detail["references"] = list(resolver.targets)
        self._received(held, version, detail)
        return Opened(held.secret, version, fields)

    def record(self, outcome: Outcome, path: str, resource: str, detail: dict[str, Detail]) -> None:
        """Append the leaf of an access."""
        op = self._op
        detail = {"path": path, **detail}
        if op.caller.subject:
            detail["subject"] = op.caller.subject
        leaf = Leaf(
            workspace=op.workspace,
            action=self.action,
            outcome=outcome,
            actor=op.actor,
            resource=resource,
            at=op.now,
            detail=detail,
            request_id=op.caller.request_id,
            ip=op.caller.ip,
        )
        op.transaction.append(Entry(op.workspace, ChangeKind.AUDIT, "", leaf.row(self._drawn.next())))

    def _target(self, text: str) -> dict[str, Any]:
        """Return the fields of a path that a reference names: an access like any other, with its own leaf."""
        path = parse_path(text)
        try:
            held, version, fields = self._open(path, CURRENT)
        except RefusedError as refused:
            self._op.transaction.append(refused.refusal)
            raise refused.public from None
        except KeyturnError as error:
            self.record("failed", text, path.resource.name, {"reason": error.code, "referred_by": self._ask.path.text})
            raise
        self._received(held, version, {"referred_by": self._ask.path.text})
        return _decode(fields)

    def _open(self, path: Path, which: Which) -> tuple[Held, Version, bytes]:
        op, state = self._op, self._state
        held = state.find(op.connection, op.workspace, path.text)
        if held is None:
            op.authorise(self.action, None, kind="secret", name=path.text, absent=path.resource)
            raise not_found("secret", path.text)
        op.authorise(self.action, held.resource, kind="secret", name=path.text)
        guards = state.guards(op.connection, op.workspace)
        if guards:
            self._approvals.require(op, self.action, path, guards=guards)
        version = state.version(op.connection, held, which)
        if version is None:
            raise _no_version(path, which)
        if version.is_destroyed or version.is_deleted(op.now):
            raise VersionGoneError(path.text, answers.version_info(version, op.now), held.secret.metadata)
        return held, version, sealing.open_version(self._keyring, op.connection, held.secret, version)

    def _received(self, held: Held, version: Version, detail: dict[str, Detail]) -> None:
        """Put a value that was opened on record, with who gets it."""
        caller, now = self._op.caller, self._op.now
        self.record(
            "allowed",
            held.secret.path,
            held.resource.name,
            {"version": version.number, "sequence": version.sequence, **detail},
        )
        tally = Tally(
            caller.workspace,
            caller.principal,
            caller.subject,
            now,
            now,
            1,
            network_of(caller.ip),
            agent_of(self._ask.user_agent),
        )
        self.reads.append(Read((held.secret.id, version.sequence, caller.consumer), tally))


def _no_version(path: Path, which: Which) -> NotFoundError:
    number, sequence = which
    if number is None and sequence is None:
        return NotFoundError(f"secret {path.text!r} has no current version", code="no_version")
    named = f"version {number}" if sequence is None else f"the version of sequence {sequence}"
    return NotFoundError(f"secret {path.text!r} has no such version: {named}", code="no_version")
