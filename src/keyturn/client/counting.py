"""Usage counted in memory: what a verifier sends back in batches.

    count -> entries by (version, outcome, minute, caller as told)  --take--> a batch

For one thread at a time; a `Verifier` calls it under its lock.  Memory is bounded: past `ENTRIES_MAX` who called is
dropped first, then the count, which is counted as lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from keyturn.kernel.secret import random_base62
from keyturn.wire.replication import UsageBatch, UsageItem

if TYPE_CHECKING:
    from keyturn.verify.model import Request

ENTRIES_MAX: Final = 4000
MINUTE_SECONDS: Final = 60
_Key = tuple[str, str, "str | None", "str | None", "str | None", "str | None", "str | None"]
_Entries = dict[_Key, list[float]]


@final
class UsageCounts:
    """How often each version was verified since the last `take`."""

    __slots__ = ("_begins", "_earlier", "_ends", "_entries", "counted", "dropped", "lost")

    def __init__(self) -> None:
        """Begin with nothing."""
        # Those of the minute that is counted in, and those of minutes before it.
        self._begins = self._ends = 0
        self._entries: _Entries = {}
        self._earlier: list[tuple[int, _Entries]] = []
        self.counted = 0
        self.lost = 0
        """What was lost and is not yet reported as such."""
        self.dropped = 0
        """What was never put into a batch."""

    def __len__(self) -> int:
        return len(self._entries) + sum(len(entries) for _, entries in self._earlier)

    def count(self, version_id: str, outcome: str, request: Request, at: float) -> None:
        """Count one verification of a key whose secret was proven."""
        if not self._begins <= at < self._ends:
            self._begin(at)
        path = request.path
        if path is not None and ("?" in path or "#" in path):
            path = path.partition("?")[0].partition("#")[0]
        key: _Key = (
            version_id,
            outcome,
            request.ip,
            request.user_agent,
            request.method,
            path,
            request.country,
        )
        self.counted += 1
        entry = self._entries.get(key)
        if entry is None:
            held = len(self)
            if held >= ENTRIES_MAX:
                key = (version_id, outcome, None, None, None, None, None)
                entry = self._entries.get(key)
            if entry is None:
                if held >= ENTRIES_MAX + ENTRIES_MAX // 4:
                    self.lost += 1
                    self.dropped += 1
                    return
                self._entries[key] = [1, at, at]
                return
        entry[0] += 1
        entry[2] = at

    def take(self) -> UsageBatch | None:
        """Return what was counted as a batch with an id of its own, and begin anew; None when there is nothing."""
        if not len(self) and not self.lost:
            return None
        minutes = [*self._earlier, (self._begins, self._entries)]
        self._earlier, self._entries = [], {}
        lost, self.lost = self.lost, 0
        items = tuple(
            UsageItem(
                version_id=version_id,
                outcome=outcome,
                minute=minute,
                count=int(count),
                first_at=first_at,
                at=at,
                ip=_told(ip, 64),
                user_agent=_told(agent, 1024),
                method=_told(method, 32),
                path=_told(path, 8192),
                country=_told(country, 2),
            )
            for minute, entries in minutes
            for (version_id, outcome, ip, agent, method, path, country), (count, first_at, at) in entries.items()
        )
        return UsageBatch("ub_" + random_base62(22), items, lost)

    def _begin(self, at: float) -> None:
        """Count in another minute; one that was counted in before is gone on with."""
        if self._entries:
            self._earlier.append((self._begins, self._entries))
        self._begins = int(at // MINUTE_SECONDS) * MINUTE_SECONDS
        self._ends = self._begins + MINUTE_SECONDS
        self._entries = next((entries for begins, entries in self._earlier if begins == self._begins), {})
        self._earlier = [(begins, entries) for begins, entries in self._earlier if begins != self._begins]


def total(batch: UsageBatch) -> int:
    """Return how many verifications a batch has counted."""
    return sum(item.count for item in batch.items)


def _told(text: str | None, longest: int) -> str | None:
    # JSON holds no lone surrogates.
    return None if text is None else text[:longest].encode("utf-8", "replace").decode()
