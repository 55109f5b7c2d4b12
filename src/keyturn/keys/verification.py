"""Verify: `POST /api/v1/verify` and every other edge that asks whether a presented key may pass.

    verify_now     memory only: proven caller -> fresh? -> replica -> rules -> charged -> fresh still? -> answer
      | None       it cannot tell
      v
    verify         prove the caller | look up an unknown id | prove a slow digest | ask who keeps the counters
                   | read through while stale

Freshness is checked before the decision and again after it; when something was awaited to charge limits or quotas, so
is the decision.  What was spent for an answer that does not count is given back.

What was decided from a look-up counts only while the node is fresh and the replica still does not know better;
otherwise caller and key are read from one snapshot taken after the request came in.  When that fails too the answer is
UNAVAILABLE, never a guess.

Nothing is written to the database here.  Usage of a key is counted once its secret was proven, whatever the outcome.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import ForbiddenError, StaleError, UnavailableError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.tokenformat import sha256, version_id_of
from keyturn.keys.callers import STALE_AFTER_SECONDS
from keyturn.keys.charging import Charging
from keyturn.keys.rehash import outdated
from keyturn.verify.explain import explain, explain_charges
from keyturn.verify.limits import LocalLimiter
from keyturn.verify.model import UNAVAILABLE, Allowed, Request
from keyturn.verify.rules import decide
from keyturn.wire.actions import Action
from keyturn.wire.verification import CheckReport, Code, ReleasedSlots, VerifyResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.caller import Credentials
    from keyturn.kernel.clock import Clock
    from keyturn.keys.callers import CallerProofs, ProvenCaller, ProvenCallers
    from keyturn.keys.lookup import Lookup
    from keyturn.keys.ports import UsageSink
    from keyturn.keys.rehash import Rehasher
    from keyturn.keys.replication import Replication
    from keyturn.keys.slow_proofs import SlowProofs
    from keyturn.verify.model import Admission, Check, Denied, VersionPolicy
    from keyturn.verify.replica import Replica
    from keyturn.verify.spending import Limiter, Quotas
    from keyturn.verify.standing import KeyspacePolicy
    from keyturn.verify.terms import Terms
    from keyturn.wire.verification import ReleaseSlots, VerifyRequest

ANSWER_SECONDS: Final = 5.0
ANSWERS_MAX: Final = 4096
"""How many answers that admit a version are kept encoded."""

_encode: Final = msgspec.json.Encoder().encode


class VerifyService:
    """Decides about presented keys for callers that may verify them; for one event loop."""

    def __init__(
        self,
        replication: Replication,
        callers: ProvenCallers,
        proofs: CallerProofs,
        lookup: Lookup,
        slow: SlowProofs,
        rehasher: Rehasher,
        usage: UsageSink,
        clock: Clock,
        *,
        limiter: Limiter | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        """Decide from what `replication` keeps in memory.

        Without a `limiter` limits are kept in this process; without `quotas` a key that has some is UNAVAILABLE.
        """
        self._replication = replication
        self._replica = replication.replica
        self._freshness = replication.freshness
        self._callers = callers
        self._proofs = proofs
        self._lookup = lookup
        self._slow = slow
        self._rehasher = rehasher
        self._usage = usage
        self._boottime = clock.boottime
        self._now = clock.now
        self.charging = Charging(LocalLimiter() if limiter is None else limiter, quotas)
        self._answers: dict[str, tuple[VersionPolicy, Terms, VerifyResponse, bytes]] = {}

    def verify_now(self, token: bytes, ip: str | None, asked: VerifyRequest) -> VerifyResponse | None:
        """Answer from memory, or None when `verify` has to be asked.

        `token` is the caller's bearer token and `ip` its address.
        Raises InputError when the scope query, or what is to be charged, is malformed.
        """
        now = self._now()
        caller = self._callers.find(token, ip, now)
        if caller is None:
            return None
        request = _request(asked)
        known, version = self._known(caller, request)
        return self._decide_now(caller, request, version, now, explained=asked.explain) if known else None

    def encode(self, answer: VerifyResponse) -> bytes:
        """Return an answer of this service as JSON; what is answered again and again is encoded once."""
        held = self._answers.get(answer.version_id or "")
        return held[3] if held is not None and held[2] is answer else _encode(answer)

    async def verify(self, credentials: Credentials, asked: VerifyRequest) -> VerifyResponse:
        """Answer, from the database where memory is not enough.

        Raises UnauthenticatedError when the caller is not known, and InputError when the scope query, or what is to
        be charged, is malformed.
        """
        request, explained = _request(asked), asked.explain
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                caller = self._callers.find(credentials.token.reveal_bytes(), credentials.ip, self._now())
                if caller is None and self._fresh(STALE_AFTER_SECONDS):
                    caller = await self._proofs.prove(credentials)
                answer = None if caller is None else await self._from_memory(caller, request, explained=explained)
                return answer or await self._read_through(credentials, request, explained=explained)
        except (UnavailableError, TimeoutError):
            return _answer(UNAVAILABLE)

    async def release(self, credentials: Credentials, request: ReleaseSlots) -> ReleasedSlots:
        """Give back slots of concurrency limits; those that are not held (any more) change nothing.

        Raises UnauthenticatedError when the caller is not known, and ForbiddenError when it may verify no key at all.
        """
        caller = self._callers.find(credentials.token.reveal_bytes(), credentials.ip, self._now())
        if caller is None or not self._fresh(caller.stale_after_seconds):
            caller = await self._proofs.prove(credentials)
        if not caller.may_verify_any():
            message = "this token may verify no keys, so it holds no slots"
            raise ForbiddenError(message, hint=f"it needs {Action.KEY_VERIFY} on the keys it verifies")
        return ReleasedSlots(await self.charging.release(request.slots))

    # --- memory ---------------------------------------------------------------------------------------------------

    def _known(self, caller: ProvenCaller, request: Request) -> tuple[bool, VersionPolicy | None]:
        """Return what a presented key names, if memory alone can tell: not while stale, nor after a slow proof only."""
        version_id = version_id_of(request.presented)
        version = None if version_id is None else self._replica.version(version_id)
        if version is None or version.standing.foreign:
            if not self._fresh(caller.stale_after_seconds):
                return _UNKNOWN
            takes_foreign = caller.workspace in self._replication.foreign_workspaces
            if version_id is not None and version is None and not takes_foreign:
                return _UNKNOWN
            version, slow = self._locate(self._replica, caller, request) if takes_foreign else (None, ())
            if slow or (version is None and takes_foreign):
                return _UNKNOWN
        return True, version

    def _decide_now(
        self, caller: ProvenCaller, request: Request, version: VersionPolicy | None, now: float, *, explained: bool
    ) -> VerifyResponse | None:
        """Decide and charge if the node is fresh for it before and after, and memory is enough; else None."""
        bound = _bound(caller, version)
        fresh = self._freshness.fresh
        if not fresh(self._boottime(), bound):
            return None
        verdict, checks = _decide(caller, request, version, now, explained=explained, proven=False)
        admission = None
        if isinstance(verdict, Allowed) and not _is_free(request, verdict.version):
            admission = self.charging.admit_now(request, verdict, now)
            if admission is None:
                return None
        if fresh(self._boottime(), bound):
            return self._finish(verdict, request, checks, now, admission)
        if admission is not None:
            self.charging.undo(admission)
        return None

    async def _from_memory(self, caller: ProvenCaller, request: Request, *, explained: bool) -> VerifyResponse | None:
        """Decide with what a look-up, a slow proof or a keeper adds; None when the node is not fresh (any more)."""
        if not self._fresh(caller.stale_after_seconds):
            return None
        known, version = self._known(caller, request)
        if known:
            return await self._decide_later(caller, request, version, explained=explained)
        version, slow = self._locate(self._replica, caller, request)
        if version is None and not slow:
            view = await self._lookup.unknown(caller.workspace, request)
            # What the follower has brought meanwhile is newer than the look-up.
            version, slow = self._locate(self._replica, caller, request)
            if version is None and not slow and view is not None:
                version, slow = self._locate(view, caller, request)
        if not slow:
            return await self._decide_later(caller, request, version, explained=explained)
        version = await self._slow.prove(request.presented, slow)
        if version is None:
            return await self._decide_later(caller, request, None, explained=explained)
        current = self._replica.version(version.id) or version
        proven = current.digest == version.digest
        return await self._decide_later(caller, request, current, explained=explained, proven=proven)

    async def _decide_later(
        self,
        caller: ProvenCaller,
        request: Request,
        version: VersionPolicy | None,
        *,
        explained: bool,
        proven: bool = False,
    ) -> VerifyResponse | None:
        """Decide and charge if the node is fresh for it before and after; else None, with nothing charged.

        What came while the keepers were asked counts: the decision is made again, and must still allow.
        """
        now, bound = self._now(), _bound(caller, version)
        if not self._fresh(bound):
            return None
        verdict, checks = _decide(caller, request, version, now, explained=explained, proven=proven)
        admission = None
        if isinstance(verdict, Allowed) and not _is_free(request, verdict.version):
            held = self._replica.version(verdict.version.id) is verdict.version
            admission = await self.charging.admit_later(request, verdict, now)
            # What a look-up found may be unknown to the replica still; what the replica knew must be there.
            current = self._replica.version(verdict.version.id) or (None if held else version)
            proven = proven and current is not None and current.digest == verdict.version.digest
            again, checks = _decide(caller, request, current, now, explained=explained, proven=proven)
            bound = min(bound, _bound(caller, current))
            if not again:
                self.charging.undo(admission)
                verdict, admission = again, None
        if self._fresh(bound):
            return self._finish(verdict, request, checks, now, admission)
        if admission is not None:
            self.charging.undo(admission)
        return None

    # --- the database ---------------------------------------------------------------------------------------------

    async def _read_through(self, credentials: Credentials, request: Request, *, explained: bool) -> VerifyResponse:
        """Decide about caller and key as one snapshot has them; a snapshot that grew too old meanwhile admits nothing.

        Raises StaleError, with nothing charged, when it did: this process was stopped for longer than the bound.
        """
        self._proofs.require_plausible(credentials)
        began = self._boottime()
        caller, view = await self._lookup.read_through(credentials, request)
        version, slow = self._locate(view, caller, request)
        if slow:
            version = await self._slow.prove(request.presented, slow)
        now = self._now()
        verdict, checks = _decide(caller, request, version, now, explained=explained, proven=bool(slow))
        admission = None
        if isinstance(verdict, Allowed) and not _is_free(request, verdict.version):
            admission = await self.charging.admit_later(request, verdict, now)
        if self._boottime() < began + _bound(caller, version):
            return self._finish(verdict, request, checks, now, admission)
        if admission is not None:
            self.charging.undo(admission)
        raise StaleError("what was read is too old to answer from", hint="ask again")

    # --- deciding and answering -----------------------------------------------------------------------------------

    def _fresh(self, bound: float) -> bool:
        return self._freshness.fresh(self._boottime(), bound)

    def _locate(
        self, view: Replica, caller: ProvenCaller, request: Request
    ) -> tuple[VersionPolicy | None, tuple[VersionPolicy, ...]]:
        """Return the version that a presented key names in a replica, or those that it may be after a slow proof.

        An imported key is never found by the id of its version: that is ours, and no part of the key.
        """
        version_id = version_id_of(request.presented)
        version = None if version_id is None else view.version(version_id)
        if version is not None and not version.standing.foreign:
            return version, ()
        found = view.foreign(caller.workspace, request.presented, sha256(request.presented), request.keyspace)
        now = self._now()
        return found.version, tuple(one for one in found.candidates if caller.may_verify(one, now))

    def _finish(
        self,
        verdict: Allowed | Denied,
        request: Request,
        checks: Sequence[Check] | None,
        now: float,
        admission: Admission | None,
    ) -> VerifyResponse:
        version = verdict.version
        if version is None:
            return _answer(verdict, checks)
        if admission is not None:
            verdict = admission.verdict
        # The value of an enumeration's member costs two calls.
        self._usage.count(version, _VALID if verdict else verdict.code.value, request, now)
        if admission is not None and admission.shadow:
            self.charging.note(admission, version, request, self._usage, now)
        if verdict and outdated(version):
            self._rehasher.offer(version, request.presented)
        if checks is not None:
            checks = (*checks, *explain_charges(request, version, admission))
            answer = _answer(verdict, checks)
            return answer if admission is None else _charged(answer, admission, answer.checks)
        if admission is not None:
            return _charged(self._free_answer(version), admission, None)
        return self._free_answer(version) if verdict else _answer(verdict)

    def _free_answer(self, version: VersionPolicy) -> VerifyResponse:
        """Return the answer that admits a version; it is kept for as long as nothing about the version changes."""
        terms = version.terms
        held = self._answers.get(version.id)
        if held is not None and held[0] is version and held[1] is terms:
            return held[2]
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.clear()
        answer = _answer(Allowed(version, terms))
        self._answers[version.id] = (version, terms, answer, _encode(answer))
        return answer


_UNKNOWN: Final = (False, None)
_VALID: Final = Code.VALID.value


def _bound(caller: ProvenCaller, version: VersionPolicy | None) -> float:
    """Return for how long a decision for this caller about this version may rest on one proof of freshness."""
    bound = caller.stale_after_seconds
    if version is not None and version.keyspace.stale_after_seconds < bound:
        return version.keyspace.stale_after_seconds
    return bound


def _is_free(request: Request, version: VersionPolicy) -> bool:
    """Tell whether there is nothing to charge, and nothing in shadow."""
    return not request.limits and not request.quotas and version.terms.plain


def _answer(verdict: Allowed | Denied, checks: Sequence[Check] | None = None) -> VerifyResponse:
    code = verdict.code.value
    reports = None if checks is None else tuple(CheckReport(c.name, c.verdict, c.source, c.detail) for c in checks)
    version = verdict.version
    if version is None:
        return VerifyResponse(valid=False, code=code, checks=reports)
    terms = version.terms
    return VerifyResponse(
        valid=bool(verdict),
        code=code,
        key_id=version.key_id,
        version_id=version.id,
        keyspace=version.keyspace.name,
        owner=version.owner,
        environment=version.environment,
        name=version.name,
        scopes=terms.grants.names,
        expires_at=None if version.expires_at is None else rfc3339(version.expires_at),
        metadata=version.metadata(),
        plan=None if terms.plan is None else terms.plan.name,
        checks=reports,
    )


def _charged(base: VerifyResponse, admission: Admission, checks: tuple[CheckReport, ...] | None) -> VerifyResponse:
    """Return an answer about the version of `base` that says what was charged, and the verdict after it."""
    verdict = admission.verdict
    # By position: this is the hot path of every key that has limits.
    return VerifyResponse(
        bool(verdict),
        _VALID if verdict else verdict.code.value,
        base.key_id,
        base.version_id,
        base.keyspace,
        base.owner,
        base.environment,
        base.name,
        base.scopes,
        base.expires_at,
        base.metadata,
        base.plan,
        admission.limits or None,
        admission.quotas or None,
        admission.retry_after_seconds or None,
        admission.slots or None,
        admission.shadow or None,
        checks,
    )


def _decide(
    caller: ProvenCaller,
    request: Request,
    version: VersionPolicy | None,
    now: float,
    *,
    explained: bool,
    proven: bool,
) -> tuple[Allowed | Denied, Sequence[Check] | None]:
    seen = _shown if version is None or caller.may_verify(version, now) else _hidden
    if explained:
        return explain(request, version, now, seen, proven=proven)
    return decide(request, version, now, seen, proven=proven), None


def _request(asked: VerifyRequest) -> Request:
    return Request(
        asked.key,
        asked.scopes,
        asked.ip,
        asked.origin,
        asked.method,
        asked.path,
        asked.user_agent,
        None,
        asked.keyspace,
        asked.country,
        asked.cost,
        asked.limits,
        asked.quotas,
    )


def _shown(_keyspace: KeyspacePolicy) -> bool:
    return True


def _hidden(_keyspace: KeyspacePolicy) -> bool:
    return False
