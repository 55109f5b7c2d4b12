"""Freshness: until when a node may admit keys from its replica, as a pure state machine.

    starting --loaded--> following --confirmed, applied--> fresh until (boottime of sending) + bound
        ^                    |
        `---- resync --------'   another log, or a head below what was applied

The rule is a proof.  A *confirm* is sent at boottime `sent`, and the head it returns is read from the database
after that.  A change committed before the head was read is at or below that head, so once the node has applied
the head it obeys the change.  A change committed later was committed after `sent`, so a node that stops at
`sent` + bound stops before (commit + bound).  Therefore:

- Only confirm extends freshness, and from the moment of sending, never of the answer.
- An extension counts only once everything up to its head is applied: a stuck follower cannot keep extending.
- A confirm of another log counts for nothing, and a resync takes every extension away at once.
- Confirms may be lost, late or out of order: each stands for itself, and the one sent last counts.

The other half of the bound is the registry's: the confirm writes `applied` and its time where a revocation reads
them, and that write must be visible before the head is read.  A confirm whose node is not registered proves
nothing and is not to be given to `confirmed`.

Boottime goes on while the machine sleeps or the process is stopped, so a pause never makes a node fresher.
"""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

_WAITING_MAX: Final = 64


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A confirm on its way: when it was sent (boottime), and what it writes into the registry."""

    at: float
    log_id: str
    applied: int


class Extension(msgspec.Struct, frozen=True, gc=False):
    """What one confirm offers: freshness for `fresh_for` after `sent`, once `head` of the log is applied."""

    sent: float
    fresh_for: float
    log_id: str
    head: int


_NOTHING: Final = Extension(-inf, 0.0, "", -1)


class Freshness:
    """The freshness of one node.

    `fresh` is asked before a decision and again after it, so that a pause in between cannot admit.  It speaks for
    what is applied when it is asked: a decision that news overtook in between is made again first.  Every method but
    `fresh` and `remaining` is for the one task that follows the log; those two may be asked from any thread.
    """

    __slots__ = ("_active", "_applied", "_log_id", "_newest_sent", "_resync_needed", "_waiting")

    def __init__(self) -> None:
        """Begin with nothing loaded: not fresh, resync needed."""
        self._log_id = ""
        self._applied = -1
        self._resync_needed = True
        self._active = _NOTHING
        self._newest_sent = -inf
        self._waiting: list[Extension] = []

    @property
    def log_id(self) -> str:
        """The log that is followed; empty before the first snapshot."""
        return self._log_id

    @property
    def applied(self) -> int:
        """The number up to which the log is applied; -1 before the first snapshot."""
        return self._applied

    @property
    def resync_needed(self) -> bool:
        """Whether a snapshot must be loaded before anything can be fresh."""
        return self._resync_needed

    def fresh(self, now_boot: float, stale_after: float) -> bool:
        """Say whether keys of a keyspace with this staleness bound may be admitted from the replica now."""
        active = self._active
        fresh_for = active.fresh_for
        bound = fresh_for if fresh_for < stale_after else stale_after  # noqa: FURB136 -- min() costs a call here
        return now_boot < active.sent + bound

    def remaining(self, now_boot: float, stale_after: float = inf) -> float:
        """Return for how long `fresh` still holds, 0 when it does not: the `fresh_for` a server gives to an SDK."""
        active = self._active
        return max(0.0, active.sent + min(active.fresh_for, stale_after) - now_boot)

    def sending(self, now_boot: float) -> Sent:
        """Begin a confirm: call just before it is sent, write what it says, and give it back to `confirmed`."""
        return Sent(now_boot, self._log_id, self._applied)

    def confirmed(self, sent: Sent, log_id: str, head: int, fresh_for: float) -> None:
        """Take in the answer to a confirm; answers may come in any order, or never.

        Another log than the one followed, or a head below what was applied when the confirm was sent, calls for
        a resync; what a later confirm has already contradicted is ignored.
        """
        if not self._resync_needed:
            if log_id != self._log_id and sent.at < self._newest_sent:
                return
            if log_id != self._log_id or (sent.log_id == log_id and head < sent.applied):
                self.start_resync()
        if log_id == self._log_id:
            self._newest_sent = max(self._newest_sent, sent.at)
        self._wait_for(Extension(sent.at, fresh_for if fresh_for > 0 else 0.0, log_id, head))
        self._settle()

    def advanced(self, seq: int) -> None:
        """The replica has applied everything up to `seq` of the log that is followed."""
        if not self._resync_needed and seq > self._applied:
            self._applied = seq
            self._settle()

    def observed(self, log_id: str, head: int) -> None:
        """The follower read the head row after it applied; another log, or a head below that, calls for a resync."""
        if not self._resync_needed and (log_id != self._log_id or head < self._applied):
            self.start_resync()

    def start_resync(self) -> None:
        """Stop being fresh until a snapshot is loaded; also for a cursor older than what the log keeps."""
        self._resync_needed = True
        self._active = _NOTHING
        self._waiting.clear()

    def loaded(self, log_id: str, seq: int) -> None:
        """A snapshot that holds at least everything up to `seq` of this log has been adopted.

        Confirms of that log whose answers came while it was loading count from now on.
        """
        self._log_id = log_id
        self._applied = seq
        self._resync_needed = False
        self._active = _NOTHING
        self._waiting = [extension for extension in self._waiting if extension.log_id == log_id]
        self._newest_sent = max((extension.sent for extension in self._waiting), default=-inf)
        self._settle()

    def _wait_for(self, offered: Extension) -> None:
        """Keep an extension unless another one is both later and sooner reached; forget the oldest past the bound."""
        kept = [
            other
            for other in self._waiting
            if other.log_id != offered.log_id or other.sent > offered.sent or other.head < offered.head
        ]
        kept.append(offered)
        kept.sort(key=lambda extension: extension.sent)
        self._waiting = kept[-_WAITING_MAX:]

    def _settle(self) -> None:
        """Make the latest extension that is covered by what was applied the active one."""
        if self._resync_needed:
            return
        for extension in reversed(self._waiting):
            if extension.head <= self._applied and extension.log_id == self._log_id:
                if extension.sent > self._active.sent:
                    self._active = extension
                self._waiting = [later for later in self._waiting if later.sent > extension.sent]
                return
