"""The decision about a presented key from memory, or that it cannot be made there.

    replica -> rules.decide -> admission.admit -> counted -> Verification
       | not known, or slow     | quotas, exact limits
       `-> ASK                  `-> ASK            not fresh, before or after -> STALE

One lock is held from the first look at the replica until the verdict is counted, so that no change is seen half, and
counters of limits are exact among the threads of a process.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final, Literal, final

from keyturn.client.model import Verification
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.tokenformat import parse, sha256, version_id_of
from keyturn.verify.admission import admit, shadow_outcomes, undo
from keyturn.verify.explain import explain, explain_charges
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import Admission, Allowed
from keyturn.verify.rules import decide
from keyturn.verify.spending import LimitDemand, LimitOutcome, Reservation
from keyturn.wire.policy import LimitRule
from keyturn.wire.verification import CheckReport, Code, VerifyResponse

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from keyturn.client.counting import UsageCounts
    from keyturn.client.replication import Feed
    from keyturn.kernel.clock import Clock
    from keyturn.verify.model import Check, Denied, Request, VersionPolicy
    from keyturn.verify.spending import Limiter, QuotaDemand
    from keyturn.verify.terms import Terms

UNKNOWN_PER_SECOND: Final = 20.0
UNKNOWN_BURST: Final = 50.0
"""How often a well-formed key that is not known here is asked about: it may have been issued just now."""

SILENT_SECONDS: Final = 2.0
"""How long a server that has not answered is not asked about them."""

_SCALED_MAX: Final = 4096
_NO_CHARGES: Final = LimitOutcome(admitted=True, reports=())
_VALID: Final = Code.VALID.value
_REFUSED: Final = Verification(VerifyResponse(valid=False, code=Code.NOT_FOUND))


_Known = tuple[
    str,
    str,
    str,
    str,
    str,
    "str | None",
    "tuple[str, ...]",
    "str | None",
    "dict[str, str] | None",
    "str | None",
]


class Undecided(Enum):
    """Why memory gave no verdict."""

    ASK = "ask"
    STALE = "stale"


class _ServerQuotas:
    """A `Quotas` whose balances are with the server: nothing is ever spent here."""

    def reserve_now(self, demands: Sequence[QuotaDemand], now: float) -> Reservation | None:  # noqa: ARG002
        """See Quotas: the server has to be asked."""
        return None

    async def reserve(self, demands: Sequence[QuotaDemand], now: float) -> Reservation:  # noqa: ARG002
        """See Quotas; nobody comes here."""
        return Reservation(admitted=False, reports=(), unavailable=True)

    def release(self, reservation: Reservation) -> None:
        """See Quotas."""


class _NoLimits:
    """A `Limiter` that leaves limits to somebody else: nothing is charged, or the server has to be asked."""

    def __init__(self, outcome: LimitOutcome | None) -> None:
        self._outcome = outcome

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome | None:  # noqa: ARG002
        return self._outcome

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:  # noqa: ARG002
        return _NO_CHARGES

    async def release(self, slots: Sequence[str]) -> int:  # noqa: ARG002
        return 0


class ShareLimiter:
    """A `Limiter` in memory that keeps one of `share` equal parts of every limit, at least one unit."""

    def __init__(self, share: int) -> None:
        """Keep the part of one of so many processes."""
        self._share = share
        self._whole = LocalLimiter()
        self._scaled: dict[LimitRule, LimitRule] = {}

    def take_now(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """See LocalLimiter."""
        parts = [LimitDemand(self._part(one.rule), one.workspace, one.counter, one.cost) for one in demands]
        return self._whole.take_now(parts, now)

    async def take(self, demands: Sequence[LimitDemand], now: float) -> LimitOutcome:
        """See LocalLimiter."""
        return self.take_now(demands, now)

    async def release(self, slots: Sequence[str]) -> int:
        """See LocalLimiter."""
        return self.release_now(slots)

    def release_now(self, slots: Sequence[str]) -> int:
        """See LocalLimiter."""
        return self._whole.release_now(slots)

    def _part(self, rule: LimitRule) -> LimitRule:
        found = self._scaled.get(rule)
        if found is None:
            if len(self._scaled) >= _SCALED_MAX:
                self._scaled.clear()
            share = self._share
            burst = None if rule.burst is None else max(1, rule.burst // share)
            found = self._scaled[rule] = LimitRule(
                rule.name,
                max(1, rule.limit // share),
                rule.window_seconds,
                burst,
                rule.per,
                rule.kind,
                rule.mode,
                rule.auto,
                rule.on_store_error,
            )
        return found


@final
class _Admitted(Verification):
    """A verdict that admits; most of its kind are only asked whether they do, so it is worded when it is read."""

    __slots__ = ("_admission", "_terms", "_version")

    def __init__(self, version: VersionPolicy, terms: Terms, admission: Admission) -> None:
        """Admit a version under these terms, charged like this."""
        self._response = None
        self.valid = True
        self._version = version
        self._terms = terms
        self._admission = admission

    def _worded(self) -> VerifyResponse:
        """See Verification."""
        return _response(_VALID, _known(self._version, self._terms), self._admission, None)


@final
class Verdicts:
    """Decides; any number of threads may ask."""

    def __init__(
        self,
        feed: Feed,
        counts: UsageCounts,
        clock: Clock,
        lock: threading.Lock,
        *,
        limits: Literal["local", "server", "off"],
        share: int,
    ) -> None:
        """Decide from what `feed` keeps; `lock` is the one it changes things under."""
        self._replica = feed.replica
        self._fresh = feed.freshness.fresh
        self._counts = counts
        self._at = clock.at
        self._boottime = clock.boottime
        self._lock = lock
        self._local: LocalLimiter | ShareLimiter | None = None
        if limits == "local":
            self._local = LocalLimiter() if share == 1 else ShareLimiter(share)
        self._limiter: Limiter = _NoLimits(None if limits == "server" else _NO_CHARGES)
        if self._local is not None:
            self._limiter = self._local
        self._quotas = _ServerQuotas()
        self._unknown = UNKNOWN_BURST
        self._unknown_at = -inf
        self._silent_until = -inf
        self.decided = 0
        self.asked = 0
        self.unavailable = 0

    def counters(self) -> dict[str, int]:
        """Return how often memory decided, how often the server was asked, and how often neither could tell."""
        return {"decided": self.decided, "asked": self.asked, "unavailable": self.unavailable}

    def decide(self, request: Request, *, explained: bool = False) -> Verification | Undecided:
        """Decide, and count it; raises InputError for what is malformed, whatever the key."""
        version_id = version_id_of(request.presented)
        with self._lock:
            version = None if version_id is None else self._replica.version(version_id)
            if version is None or version.standing.foreign:
                located = self._locate(request, known=version_id is not None and version is None)
                if isinstance(located, Undecided):
                    return located
                version = located
            bound = self._shortest() if version is None else version.standing.keyspace.stale_after_seconds
            boottime = self._boottime()
            if not self._fresh(boottime, bound):
                return Undecided.STALE
            now = self._at(boottime)
            if explained:
                return self._explained(request, version, bound, now)
            verdict = decide(request, version, now)
            admission: Admission | None = None
            if isinstance(verdict, Allowed):
                admission = admit(request, verdict, now, self._limiter, self._quotas)
                if admission is None:
                    return Undecided.ASK
            if not self._fresh(self._boottime(), bound):
                self._undo(admission)
                return Undecided.STALE
            self.decided += 1
            return self._answer(request, verdict, admission, None, now)

    def ask(self) -> None:
        """Count that the server is asked."""
        with self._lock:
            self.asked += 1

    def unanswered(self, *, asked: bool) -> None:
        """Count a verification without a verdict; a server that did not answer is spared what is not known here."""
        with self._lock:
            self.unavailable += 1
            if asked:
                self._silent_until = self._boottime() + SILENT_SECONDS

    def release(self, slots: Sequence[str]) -> int:
        """Give back slots that are held here; return how many were."""
        if self._local is None:
            return 0
        with self._lock:
            return self._local.release_now(slots)

    # --- under the lock -------------------------------------------------------------------------------------------

    def _explained(
        self, request: Request, version: VersionPolicy | None, bound: float, now: float
    ) -> Verification | Undecided:
        """Decide, and report every check."""
        verdict, checks = explain(request, version, now)
        admission: Admission | None = None
        if isinstance(verdict, Allowed):
            admission = admit(request, verdict, now, self._limiter, self._quotas)
            if admission is None:
                return Undecided.ASK
        if not self._fresh(self._boottime(), bound):
            self._undo(admission)
            return Undecided.STALE
        if verdict.version is not None:
            checks = (*checks, *explain_charges(request, verdict.version, admission))
        self.decided += 1
        return self._answer(request, verdict, admission, checks, now)

    def _answer(
        self,
        request: Request,
        verdict: Allowed | Denied,
        admission: Admission | None,
        checks: Sequence[Check] | None,
        now: float,
    ) -> Verification:
        """Count a verdict and word it."""
        if admission is not None:
            verdict = admission.verdict
            if admission.shadow and verdict.version is not None:
                for outcome in shadow_outcomes(admission.shadow):
                    self._counts.count(verdict.version.id, outcome, request, now)
        version = verdict.version
        if version is None:
            shown = None if checks is None else _reports(checks)
            return _REFUSED if shown is None else Verification(VerifyResponse(False, verdict.code.value, checks=shown))
        if admission is None or checks is not None or not isinstance(verdict, Allowed):
            self._counts.count(version.id, verdict.code.value, request, now)
            known = _known(version, version.terms)
            return Verification(_response(verdict.code.value, known, admission, checks))
        self._counts.count(version.id, _VALID, request, now)
        return _Admitted(version, verdict.terms, admission)

    def _locate(self, request: Request, *, known: bool) -> VersionPolicy | Undecided | None:
        """Find an imported key by its digest, or say what an id that is not here calls for."""
        if not self._fresh(self._boottime(), self._shortest()):
            return Undecided.STALE
        workspaces = {one.workspace for one in self._replica.keyspaces() if one.accepts_foreign}
        for workspace in workspaces:
            found = self._replica.foreign(workspace, request.presented, sha256(request.presented), request.keyspace)
            if found.version is not None:
                return found.version
            if found.candidates:
                return Undecided.ASK
        return Undecided.ASK if known and self._is_ours(request.presented) and self._take_turn() else None

    def _is_ours(self, presented: str) -> bool:
        shape = parse(presented)
        return shape is not None and any(
            one.prefix == shape.prefix and one.tag == shape.tag for one in self._replica.keyspaces()
        )

    def _take_turn(self) -> bool:
        now = self._boottime()
        if now < self._silent_until:
            return False
        self._unknown = min(UNKNOWN_BURST, self._unknown + (now - self._unknown_at) * UNKNOWN_PER_SECOND)
        self._unknown_at = now
        if self._unknown < 1:
            return False
        self._unknown -= 1
        return True

    def _shortest(self) -> float:
        return min((one.stale_after_seconds for one in self._replica.keyspaces()), default=inf)

    def _undo(self, admission: Admission | None) -> None:
        if admission is not None and self._local is not None:
            self._local.release_now(undo(admission, self._quotas))


def _known(version: VersionPolicy, terms: Terms) -> _Known:
    """Return what is told of a key whose secret was proven, in the order of VerifyResponse."""
    told = version.told()
    return (
        version.key_id,
        version.id,
        version.standing.keyspace.name,
        told.owner,
        version.standing.environment,
        told.name,
        terms.grants.names,
        None if version.expires_at is None else rfc3339(version.expires_at),
        told.metadata,
        None if terms.plan is None else terms.plan.name,
    )


def _response(code: str, known: _Known, admission: Admission | None, checks: Sequence[Check] | None) -> VerifyResponse:
    shown = None if checks is None else _reports(checks)
    if admission is None:
        return VerifyResponse(code == _VALID, code, *known, checks=shown)
    return VerifyResponse(
        code == _VALID,
        code,
        *known,
        admission.limits or None,
        admission.quotas or None,
        admission.retry_after_seconds or None,
        admission.slots or None,
        admission.shadow or None,
        shown,
    )


def _reports(checks: Sequence[Check]) -> tuple[CheckReport, ...]:
    return tuple(CheckReport(one.name, one.verdict, one.source, one.detail) for one in checks)
