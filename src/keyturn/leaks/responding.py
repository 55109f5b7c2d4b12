"""The responder: one elected worker does what policies say, and closes findings of what works no more.

    every LOOK_SECONDS:     actions that are due -> each in a unit of work of its own
                            changes of keys, keyspaces and secrets -> the findings they bear on
    every SWEEP_SECONDS:    what a time has ended, acceptances that are over
    at the first look, and when changes were missed: every finding of a key or secret

An action changes nothing but the database, so it is one unit of work together with its record: killed at any moment it
was done or it was not.  It is done only to a finding that is still open and still due, so two leaders do it once.

    the author may no longer do it, the policy is gone
    or is not for the key any more                           refused: a person has to act
    it fails                                                 tried again after 1 s, 5 s, 30 s ... 2 h, then given up
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.access.system import standing_rights, system_operation
from keyturn.errors import GoneError, KeyturnError
from keyturn.keys import lifecycle
from keyturn.keys.leaked import end_version, key_named
from keyturn.keys.model import REVOKED
from keyturn.keys.tokens import revoke_token
from keyturn.leaks import policy_store, rules, standing, store
from keyturn.leaks.closing import bring_in_line, would_change
from keyturn.leaks.model import OPEN_STATES, POSSESSION_POLICY
from keyturn.leaks.policies import may_respond
from keyturn.leaks.recording import event_of, notice_of, with_known
from keyturn.storage.change_log import read_changes, read_head
from keyturn.storage.leadership import Leadership
from keyturn.storage.rounds import Rounds
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.keys import RevokeKey, RevokeReason
from keyturn.wire.leaks import ActionState, LeakAction

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.leaks.model import Finding, Policy
    from keyturn.storage.change_log import Change
    from keyturn.storage.database import Database
    from keyturn.storage.transaction import Transaction

ELECTION: Final = "leak-responder"
LOOK_SECONDS: Final = 0.5
SWEEP_SECONDS: Final = 3.0
LEADER_SECONDS: Final = 5.0
STAND_AGAIN_SECONDS: Final = 2.0
BATCH: Final = 200
CHANGES_AT_ONCE: Final = 1000

_FOLLOWED_KINDS: Final = frozenset({ChangeKind.KEY, ChangeKind.KEYSPACE, ChangeKind.SECRET})
_log = structlog.get_logger("keyturn")


@dataclass(frozen=True, slots=True)
class ResponderHealth:
    """How the responder of this worker is doing; the counts are its own."""

    leader: bool
    done: int
    refused: int
    failed: int
    moved: int
    """Findings that closed or opened themselves."""
    failures: int
    """Rounds that ended with an error, which are tried again."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look has found to do."""

    due: list[Finding]
    findings: list[Finding]
    """To be brought in line."""
    cursor: int | None
    """The change that they are known up to; None when it is not known what has changed."""
    more: bool
    swept: bool

    @property
    def is_quiet(self) -> bool:
        """Whether there is nothing to do."""
        return not self.due and not self.findings and self.cursor is not None


class Responder:
    """Responds to the leaks of every workspace of one database."""

    def __init__(self, database: Database, holder: str) -> None:
        """Stand for election as `holder`, this worker's node id."""
        self._database = database
        self._leadership = Leadership(
            database,
            ELECTION,
            holder,
            seconds=LEADER_SECONDS,
            stand_again_seconds=STAND_AGAIN_SECONDS,
        )
        self._rounds = Rounds(self.respond_once, every_seconds=LOOK_SECONDS, failing="leaks could not be responded to")
        self._cursor: int | None = None
        self._sweep_after = 0.0
        self._done = self._refused = self._failed = self._moved = 0

    @property
    def health(self) -> ResponderHealth:
        """How it is doing."""
        return ResponderHealth(
            self._leadership.is_held, self._done, self._refused, self._failed, self._moved, self._rounds.failures
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Respond until stopped; then give the lead up."""
        await self._rounds.run(stop)
        await self._rounds.attempt(self._leadership.resign)

    async def respond_once(self) -> int:
        """Do one round; return how many findings it changed.

        It stands for election only when there is something to do, so that nothing is written where nothing happens.
        """
        while True:
            seen = await self._database.read(self._look)
            if seen.is_quiet:
                self._advance(seen)
                if seen.more:
                    continue
                return 0
            if not await self._leadership.lead():
                return 0
            changed = 0
            for due in seen.due:
                changed += await self._act(due)
            changed += await self._move(seen.findings)
            if seen.cursor is None:
                return changed + await self._everything()
            # Only now: what failed in between is looked at again.
            self._advance(seen)
            return changed

    # --- closing -------------------------------------------------------------------------------------------------

    async def _everything(self) -> int:
        head = (await self._database.read(read_head)).seq
        moved, after = 0, ""
        while True:
            page = await self._database.read(lambda c, last=after: self._page(c, last), aside=True)  # type: ignore[misc]
            if page is None:
                break
            moved += await self._move(page[0])
            after = page[1]
        self._cursor = head
        return moved

    def _look(self, connection: Connection) -> _Seen:
        now = self._database.clock.now()
        due = list(store.due_findings(connection, now, BATCH))
        found: list[Finding] = []
        sweeps = self._database.clock.boottime() >= self._sweep_after
        if sweeps:
            found += standing.ended_by_time(connection, now, BATCH)
            found += standing.acceptance_over(connection, now, BATCH)
        cursor, more = None, False
        changes = self._changes(connection)
        if changes is not None:
            found += standing.touched(connection, [(c.kind, c.entity) for c in changes if c.kind in _FOLLOWED_KINDS])
            cursor, more = (changes[-1].seq if changes else self._cursor), len(changes) == CHANGES_AT_ONCE
        return _Seen(due, _out_of_line(connection, found, now), cursor, more, sweeps)

    def _changes(self, connection: Connection) -> list[Change] | None:
        """Return what has changed since the last look; None when that is not known."""
        if self._cursor is None or self._cursor > read_head(connection).seq:
            return None
        try:
            return read_changes(connection, self._cursor, limit=CHANGES_AT_ONCE)
        except GoneError:
            return None

    def _advance(self, seen: _Seen) -> None:
        self._cursor = seen.cursor
        if seen.swept:
            self._sweep_after = self._database.clock.boottime() + SWEEP_SECONDS

    def _page(self, connection: Connection, after: str) -> tuple[list[Finding], str] | None:
        found = standing.every_known(connection, after, CHANGES_AT_ONCE)
        return (_out_of_line(connection, found, self._database.clock.now()), found[-1].id) if found else None

    async def _move(self, findings: Iterable[Finding]) -> int:
        moved = 0
        for one in findings:
            moved += (await self._database.write(lambda t, of=one: bring_in_line(t, of.workspace, of.id))).value  # type: ignore[misc]
        self._moved += moved
        return moved

    # --- acting --------------------------------------------------------------------------------------------------

    async def _act(self, due: Finding) -> int:
        try:
            state = (await self._database.write(lambda t: act(t, due.workspace, due.id))).value
        except KeyturnError as error:
            reason = error.message
        except Exception as error:  # noqa: BLE001 -- one finding must not hold up the others
            _log.error("an action about a leak failed", finding=due.id, exc_info=error)
            reason = type(error).__name__
        else:
            self._done += state is ActionState.DONE
            self._refused += state is ActionState.REFUSED
            return int(state is not None)
        self._failed += 1
        await self._database.write(lambda t: put_off(t, due.workspace, due.id, reason))
        return 1


def act(transaction: Transaction, workspace: str, finding_id: str) -> ActionState | None:
    """Do what is due about a finding, if it still is; return what came of it, None when nothing was to be done."""
    op = system_operation(transaction, workspace)
    found = store.load_finding(op.connection, workspace, finding_id)
    if found is None or found.due_at is None or found.due_at > op.now or found.state not in OPEN_STATES:
        return None
    policy = policy_store.load_policy_by_id(op.connection, workspace, found.policy)
    refusal = _refusal(op, found, policy)
    if refusal is not None:
        _settle(op, found, ActionState.REFUSED, policy, refusal)
        return ActionState.REFUSED
    _do(op, found, policy)
    _settle(op, found, ActionState.DONE, policy, None)
    return ActionState.DONE


def put_off(transaction: Transaction, workspace: str, finding_id: str, reason: str) -> None:
    """Try an action again later, or give it up."""
    op = system_operation(transaction, workspace)
    found = store.load_finding(op.connection, workspace, finding_id)
    if found is None or found.due_at is None:
        return
    again = rules.retry_at(found.attempts + 1, op.now)
    if again is None:
        policy = policy_store.load_policy_by_id(op.connection, workspace, found.policy)
        _settle(op, replace(found, attempts=found.attempts + 1), ActionState.FAILED, policy, reason)
        return
    later = replace(
        found, due_at=again, attempts=found.attempts + 1, last_error=reason[:512], revision=found.revision + 1
    )
    store.update_finding(op.connection, later)


def _refusal(op: Operation, found: Finding, policy: Policy | None) -> str | None:
    """Return why the action may not be done by itself; None when it may."""
    if found.policy == POSSESSION_POLICY:
        return None
    if policy is None:
        return "the policy was deleted"
    if policy.action is LeakAction.NOTIFY:
        return "the policy says no more than to notify"
    known = standing.standing(op.connection, found, op.now)
    if not rules.still_means(policy.applies, found, known):
        return "the policy is not for this key any more"
    author = standing_rights(op.connection, found.workspace, policy.author)
    if author is None:
        return f"{policy.author}, the author of the policy, is disabled"
    current = found if known is None else with_known(found, known)
    if not may_respond(author, policy.action, current, op.now):
        return f"{policy.author}, the author of the policy, may not {policy.action} this key any more"
    return None


def _do(op: Operation, found: Finding, policy: Policy | None) -> None:
    """Do the action that the policy says now."""
    action = LeakAction.REVOKE if policy is None else policy.action
    key = key_named(op, found.key, system=found.keyspace == rules.SYSTEM_KEYSPACE)
    if key is None:
        return
    if found.keyspace == rules.SYSTEM_KEYSPACE:
        if key.state != REVOKED:
            revoke_token(op, key)
    elif action is LeakAction.ROTATE and policy is not None:
        end_version(op, key, found.version, op.now + policy.overlap_seconds)
    elif action is LeakAction.DISABLE:
        if key.state != REVOKED:
            lifecycle.disable(op, key)
    else:
        lifecycle.revoke(op, key, RevokeKey(reason=RevokeReason.KEY_COMPROMISE))


def _settle(op: Operation, found: Finding, state: ActionState, policy: Policy | None, reason: str | None) -> None:
    action = found.action if policy is None or state is ActionState.REFUSED else str(policy.action)
    saved = replace(
        found,
        due_at=None,
        action=action,
        action_state=state,
        last_error=None if reason is None else reason[:512],
        revision=found.revision + 1,
    )
    store.update_finding(op.connection, saved)
    said = {"action": action, "policy": found.policy, "author": "" if policy is None else policy.author}
    if reason is not None:
        said["reason"] = saved.last_error or ""
    told = {name: value for name, value in said.items() if value}
    store.insert_events(op.connection, [(saved, [event_of(op, f"action_{state}", told)])])
    detail: dict[str, Detail] = {**notice_of(saved), **told}
    op.record(Action.SYSTEM_LEAK_RESPONSE, saved.resource, kind=ChangeKind.FINDING, entity=saved.id, detail=detail)


def _out_of_line(connection: Connection, found: Iterable[Finding], now: float) -> list[Finding]:
    unique = list({one.id: one for one in found}.values())
    known = standing.standings(connection, unique, now)
    return [one for one in unique if would_change(one, known[one.id], now)]
