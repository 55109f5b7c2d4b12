"""Charging: what the server spends on behalf of an admitted verification, and what it tells of shadow rules.

    admit_now | admit_later -> Admission --+-> answer
                                           `-> undo: it does not count after all

A refusal that was not enforced is counted for usage and for the metric, and logged now and then.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.verify.admission import admit, admit_later, shadow_outcomes, undo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.keys.ports import UsageSink
    from keyturn.verify.model import Admission, Allowed, Request, VersionPolicy
    from keyturn.verify.spending import Limiter, Quotas

SHADOW_NAMES_MAX: Final = 1000
"""How many pairs of keyspace and check are counted apart; the rest is `other`."""
SHADOW_LOG_SECONDS: Final = 60.0

_OTHER: Final = ("other", "other")
_log = structlog.get_logger("keyturn")


class Charging:
    """Spends from limits and quotas; for one event loop.  Without a keeper of quotas none are spent."""

    def __init__(self, limiter: Limiter, quotas: Quotas | None) -> None:
        """Charge what these keep."""
        self._limiter = limiter
        self._quotas = quotas
        self._logged: dict[tuple[str, str], float] = {}
        self._releasing: set[asyncio.Task[int]] = set()
        self.shadow_refusals: dict[tuple[str, str], int] = {}
        """By keyspace and check."""

    def admit_now(self, request: Request, allowed: Allowed, now: float) -> Admission | None:
        """Charge from memory; None when `admit_later` has to be awaited."""
        return admit(request, allowed, now, self._limiter, self._quotas)

    async def admit_later(self, request: Request, allowed: Allowed, now: float) -> Admission:
        """Charge, asking whoever keeps the counters."""
        return await admit_later(request, allowed, now, self._limiter, self._quotas)

    def undo(self, admission: Admission) -> None:
        """Give back what an admission has spent."""
        slots = undo(admission, self._quotas)
        if slots:
            task = asyncio.ensure_future(self._limiter.release(slots))
            self._releasing.add(task)
            task.add_done_callback(self._released)

    async def release(self, slots: Sequence[str]) -> int:
        """Give back slots of concurrency limits; return how many were still held."""
        return await self._limiter.release(slots)

    def note(
        self, admission: Admission, version: VersionPolicy, request: Request, usage: UsageSink, now: float
    ) -> None:
        """Count and log what was refused in shadow."""
        for outcome in shadow_outcomes(admission.shadow):
            usage.count(version, outcome, request, now)
        for check in admission.shadow:
            self._note_shadow((version.keyspace.name, check), version, now)

    def _note_shadow(self, name: tuple[str, str], version: VersionPolicy, now: float) -> None:
        counted = self.shadow_refusals
        if name not in counted and len(counted) >= SHADOW_NAMES_MAX:
            name = _OTHER
        counted[name] = counted.get(name, 0) + 1
        last = self._logged.get(name)
        if last is None or not last <= now < last + SHADOW_LOG_SECONDS:
            self._logged[name] = now
            _log.info(
                "would have been refused",
                keyspace=version.keyspace.name,
                key=version.key_id,
                check=name[1],
                so_far=counted[name],
            )

    def _released(self, task: asyncio.Task[int]) -> None:
        self._releasing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.warning("slots could not be given back", reason=str(task.exception()))
