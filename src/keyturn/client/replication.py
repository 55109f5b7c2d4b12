"""What a verifier asks for next and what an answer changes: a state machine without I/O.

    register --> snapshot, page by page --> poll, again and again        `ask` says which; one thread
                                            confirm, on its own           another thread
    known: false            register again, reload; not fresh meanwhile
    410, or another log     reload; not fresh meanwhile
    401 or 403              everything is forgotten at once, the registration is given back, then from the start
    a new keyspace          reload beside what is served, and stay fresh
    no answer               go on with what there is; freshness ends by itself

Whatever changes the replica or freshness happens under the lock that verifications take, in one step each, so that
none of them sees half of a change.  A page of a snapshot is read into a replica of its own beside it.

A record that cannot be read, because the server is newer, takes what it is about out of the replica: it denies.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from keyturn import errors
from keyturn.verify.freshness import Freshness, Sent
from keyturn.verify.replica import Replica
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, LimitRule, OwnerRecord, PlanRecord
from keyturn.wire.replication import WAIT_SECONDS_MAX, ConfirmedReplica, RemovedRecord

if TYPE_CHECKING:
    import threading

    from keyturn.kernel.clock import Clock
    from keyturn.wire.replication import RegisteredVerifier

CONFIRM_SECONDS_MIN: Final = 0.5
CONFIRM_SECONDS_MAX: Final = 5.0
ROUND_TRIP_SECONDS_MAX: Final = 2.0
"""Time is not learned from an answer that took longer: it could be wrong by half of that."""

_read_keyspace: Final = msgspec.json.Decoder(KeyspaceRecord).decode
_read_plan: Final = msgspec.json.Decoder(PlanRecord).decode
_read_owner: Final = msgspec.json.Decoder(OwnerRecord).decode
_read_key: Final = msgspec.json.Decoder(KeyRecord).decode


UNREADABLE: Final = LimitRule("unreadable", 1, 1, kind="unreadable")
"""What an owner whose record cannot be read is held to: a limit that is not known denies."""


class _Named(msgspec.Struct):
    id: str
    workspace: str = ""
    name: str = ""


_read_name: Final = msgspec.json.Decoder(_Named).decode


class Page(msgspec.Struct, frozen=True):
    """A `ReplicaSnapshot` whose records are read one by one."""

    log_id: str
    seq: int
    allowed: tuple[str, ...]
    keyspaces: tuple[msgspec.Raw, ...] = ()
    plans: tuple[msgspec.Raw, ...] = ()
    owners: tuple[msgspec.Raw, ...] = ()
    keys: tuple[msgspec.Raw, ...] = ()
    next_cursor: str | None = None


class Changes(msgspec.Struct, frozen=True):
    """A `ReplicaChanges` whose records are read one by one."""

    log_id: str
    seq: int
    awaited: int
    allowed: tuple[str, ...]
    keyspaces: tuple[msgspec.Raw, ...] = ()
    plans: tuple[msgspec.Raw, ...] = ()
    owners: tuple[msgspec.Raw, ...] = ()
    keys: tuple[msgspec.Raw, ...] = ()
    removed: tuple[RemovedRecord, ...] = ()


class Register(msgspec.Struct, frozen=True):
    """Ask to be registered."""


class Leave(msgspec.Struct, frozen=True):
    """Give a registration back: this process has stopped answering."""

    node: str


class Load(msgspec.Struct, frozen=True):
    """Ask for a page of the snapshot."""

    cursor: str | None


class Poll(msgspec.Struct, frozen=True):
    """Wait for changes."""

    log_id: str
    after: int
    wait_seconds: int = WAIT_SECONDS_MAX


class Confirming(msgspec.Struct, frozen=True):
    """A confirm to send: what it writes, and for which registration."""

    node: str
    sent: Sent


Ask = Register | Leave | Load | Poll


@final
class Feed:
    """The feed of one verifier.

    `ask`, `registered`, `loaded`, `changed`, `left` and `refused` are for the following thread, `confirming`,
    `confirmed` and `refused` for the confirming one.
    """

    def __init__(self, clock: Clock, lock: threading.Lock) -> None:
        """Begin with nothing; `lock` is the one that verifications take."""
        self.replica = Replica()
        self.freshness = Freshness()
        self.time_jumps = 0
        self.reloads = 0
        self.node = ""
        self.last_refusal: errors.KeyturnError | None = None
        self._clock = clock
        self._lock = lock
        self._leaving: list[str] = []
        self._loading = True
        self._staged: Replica | None = None
        self._first: Page | None = None
        self._cursor: str | None = None
        self._allowed: frozenset[str] = frozenset()
        self._awaited = 0
        self._proven = ("", -1)
        self._fresh_for = inf
        self._learned = False
        self._stopped = False

    # --- following ------------------------------------------------------------------------------------------------

    def ask(self) -> Ask:
        """Return what to ask for next."""
        if self._leaving:
            return Leave(self._leaving[0])
        if not self.node:
            return Register()
        if self._loading or self.freshness.resync_needed:
            return Load(self._cursor if self._staged is not None else None)
        return Poll(self.freshness.log_id, self.freshness.applied)

    def registered(self, answer: RegisteredVerifier) -> None:
        """A new registration: what was loaded before it does not count."""
        with self._lock:
            if self._stopped:
                self._leaving.append(answer.node)
                return
            self.node = answer.node
            self.freshness.start_resync()
        self._restart()
        self.last_refusal = None

    def left(self, node: str) -> None:
        """A registration was given back, or is not known any more."""
        self._leaving = [one for one in self._leaving if one != node]

    def loaded(self, asked: Load, page: Page) -> None:
        """Take a page in; with the last one the snapshot takes the place of what was there."""
        first, staged = self._first, self._staged
        if asked.cursor is None:
            first = self._first = page
            staged = self._staged = self.replica.staging()
        if first is None or staged is None or page.log_id != first.log_id:
            self._restart()
            return
        _apply(staged, page, frozenset(first.allowed))
        for gone in set(first.allowed) - set(page.allowed):
            staged.remove_keyspace(gone)
        self._cursor = page.next_cursor
        if page.next_cursor is not None:
            return
        freshness = self.freshness
        with self._lock:
            if not self.node:
                return
            self.replica.adopt(staged)
            if freshness.resync_needed or freshness.log_id != first.log_id:
                freshness.loaded(first.log_id, first.seq)
            else:
                freshness.advanced(first.seq)
            self._allowed = frozenset(page.allowed)
        self._restart(loading=False)
        self.reloads += 1

    def changed(self, answer: Changes) -> None:
        """Apply what has changed, all of it in one step."""
        allowed = frozenset(answer.allowed)
        with self._lock:
            if self.freshness.resync_needed or answer.log_id != self.freshness.log_id:
                return
            self._drop(self._allowed - allowed)
            _apply(self.replica, answer, allowed)
            for gone in answer.removed:
                _remove(self.replica, gone)
            self.freshness.advanced(answer.seq)
            self._awaited = max(self._awaited, answer.awaited)
            self._loading = bool(allowed - self._allowed)
            self._allowed &= allowed

    def gone(self) -> None:
        """The log does not reach back to the cursor, or is another one: reload, and be not fresh meanwhile."""
        with self._lock:
            self.freshness.start_resync()
        self._restart()

    def refused(self, refusal: errors.KeyturnError) -> None:
        """The token or the right is gone: stop at once, and forget what was replicated."""
        with self._lock:
            self.freshness.start_resync()
            self.replica.adopt(self.replica.staging())
            self.last_refusal = refusal
            if self.node:
                self._leaving.append(self.node)
            self.node = ""
            self._allowed = frozenset()
        self._restart()

    def stop(self) -> None:
        """Answer nothing any more; what `leaving` then returns is to be given back."""
        with self._lock:
            self._stopped = True
            self.freshness.start_resync()
            self.replica.adopt(self.replica.staging())
            if self.node:
                self._leaving.append(self.node)
            self.node = ""

    @property
    def leaving(self) -> tuple[str, ...]:
        """Registrations to give back."""
        return tuple(self._leaving)

    # --- confirming -----------------------------------------------------------------------------------------------

    def confirming(self) -> Confirming | None:
        """Return the confirm to send now; None before there is a registration."""
        with self._lock:
            node = self.node
            return Confirming(node, self.freshness.sending(self._clock.boottime())) if node else None

    def confirmed(self, confirming: Confirming, received: float, answer: ConfirmedReplica) -> None:
        """Learn the time, and extend freshness."""
        sent = confirming.sent
        if received - sent.at <= ROUND_TRIP_SECONDS_MAX or not self._learned:
            jump = self._clock.learn(answer.database_time, sent.at, received)
            self.time_jumps += self._learned and jump > self._clock.max_jump
            self._learned = True
        with self._lock:
            if confirming.node != self.node:
                return
            if not answer.known:
                self.node = ""
                self.freshness.start_resync()
                return
            self._drop(self._allowed - frozenset(answer.allowed))
            self._proven = (sent.log_id, sent.applied)
            self._fresh_for = answer.fresh_for
            self.freshness.confirmed(sent, answer.log_id, answer.head, answer.fresh_for)

    def confirm_awaited(self) -> bool:
        """Tell whether somebody waits for a number that is applied here and not yet proven to the registry."""
        log_id, proven = self._proven
        freshness = self.freshness
        return self._awaited <= freshness.applied and (proven < self._awaited or log_id != freshness.log_id)

    def confirm_every(self) -> float:
        """Return how long to wait between confirms: a quarter of the shortest bound."""
        with self._lock:
            bounds = [keyspace.stale_after_seconds for keyspace in self.replica.keyspaces()]
        shortest = min([self._fresh_for, *bounds])
        return min(CONFIRM_SECONDS_MAX, max(CONFIRM_SECONDS_MIN, shortest / 4))

    # --- both -----------------------------------------------------------------------------------------------------

    def _drop(self, keyspaces: frozenset[str]) -> None:
        for gone in keyspaces:
            self.replica.remove_keyspace(gone)

    def _restart(self, *, loading: bool = True) -> None:
        self._loading = loading
        self._staged = self._first = self._cursor = None


def _apply(replica: Replica, news: Page | Changes, allowed: frozenset[str]) -> None:
    """Load records; keyspaces first, since keys need theirs."""
    for raw in news.keyspaces:
        keyspace = _read(_read_keyspace, raw)
        if keyspace is None:
            replica.remove_keyspace(_read_name(raw).id)
        elif keyspace.id in allowed and not keyspace.system:
            replica.load_keyspace(keyspace)
    for raw in news.plans:
        plan = _read(_read_plan, raw)
        if plan is None:
            replica.remove_plan(_read_name(raw).id)
        else:
            replica.load_plan(plan)
    for raw in news.owners:
        owner = _read(_read_owner, raw)
        if owner is None:
            named = _read_name(raw)
            owner = OwnerRecord(named.id, named.workspace, named.name, limits=(UNREADABLE,))
        replica.apply_owner(owner, owner.id)
    for raw in news.keys:
        key = _read(_read_key, raw)
        if key is None:
            replica.remove_key(_read_name(raw).id)
        else:
            replica.apply_key(key, key.id)


def _remove(replica: Replica, gone: RemovedRecord) -> None:
    if gone.kind == "keyspace":
        replica.remove_keyspace(gone.id)
    elif gone.kind == "plan":
        replica.remove_plan(gone.id)
    elif gone.kind == "owner":
        replica.apply_owner(None, gone.id)
    else:
        replica.remove_key(gone.id)


def _read(decode: Any, raw: msgspec.Raw) -> Any:  # noqa: ANN401 -- a record of any kind
    try:
        return decode(raw)
    except msgspec.ValidationError:
        return None
