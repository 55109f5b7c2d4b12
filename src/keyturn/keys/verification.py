"""Verify: `POST /api/v1/verify` and every other edge that asks whether a presented key may pass.

    verify_now     memory only: proven caller -> fresh? -> replica -> rules -> fresh still? -> answer
      | None       it cannot tell
      v
    verify         prove the caller | look up an unknown id | prove a slow digest | read through while stale

Freshness is checked before the decision and again after it.  What was decided from a look-up counts only while the
node is fresh and the replica still does not know better; otherwise caller and key are read from one snapshot taken
after the request came in.  When that fails too the answer is UNAVAILABLE, never a guess.

Nothing is written here.  Usage of a key is counted once its secret was proven, whatever the outcome.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import UnavailableError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.tokenformat import sha256, version_id_of
from keyturn.keys.callers import STALE_AFTER_SECONDS
from keyturn.keys.rehash import outdated
from keyturn.verify.explain import explain
from keyturn.verify.model import UNAVAILABLE, Request
from keyturn.verify.rules import decide
from keyturn.wire.verification import CheckReport, VerifyResponse

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
    from keyturn.verify.model import Allowed, Check, Denied, KeyspacePolicy, VersionPolicy
    from keyturn.verify.replica import Replica
    from keyturn.wire.verification import VerifyRequest

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
    ) -> None:
        """Decide from what `replication` keeps in memory."""
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
        self._answers: dict[str, tuple[VersionPolicy, VerifyResponse, bytes]] = {}

    def verify_now(self, token: bytes, ip: str | None, asked: VerifyRequest) -> VerifyResponse | None:
        """Answer from memory, or None when `verify` has to be asked.

        `token` is the caller's bearer token and `ip` its address.
        Raises InputError when the scope query is malformed.
        """
        now = self._now()
        caller = self._callers.find(token, ip, now)
        return None if caller is None else self._decide_now(caller, _request(asked), now, explained=asked.explain)

    def encode(self, answer: VerifyResponse) -> bytes:
        """Return an answer of this service as JSON; what is answered again and again is encoded once."""
        held = self._answers.get(answer.version_id or "")
        return held[2] if held is not None and held[1] is answer else _encode(answer)

    async def verify(self, credentials: Credentials, asked: VerifyRequest) -> VerifyResponse:
        """Answer, from the database where memory is not enough.

        Raises UnauthenticatedError when the caller is not known, and InputError when the scope query is malformed.
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
            return self._answer(UNAVAILABLE)

    # --- memory ---------------------------------------------------------------------------------------------------

    def _decide_now(
        self, caller: ProvenCaller, request: Request, now: float, *, explained: bool
    ) -> VerifyResponse | None:
        """Decide what memory alone can tell: nothing while stale, about unknown ids, or about slow digests."""
        version_id = version_id_of(request.presented)
        version = None if version_id is None else self._replica.version(version_id)
        if version is None or version.standing.foreign:
            if not self._fresh(caller.stale_after_seconds):
                return None
            takes_foreign = caller.workspace in self._replication.foreign_workspaces
            if version_id is not None and version is None and not takes_foreign:
                return None
            version, slow = self._locate(self._replica, caller, request) if takes_foreign else (None, ())
            if slow or (version is None and takes_foreign):
                return None
        return self._decide_fresh(caller, request, version, now, explained=explained)

    def _decide_fresh(
        self,
        caller: ProvenCaller,
        request: Request,
        version: VersionPolicy | None,
        now: float,
        *,
        explained: bool,
        proven: bool = False,
    ) -> VerifyResponse | None:
        """Decide about a version if the node is fresh for it before and after, else None."""
        bound = caller.stale_after_seconds
        if version is not None and version.keyspace.stale_after_seconds < bound:
            bound = version.keyspace.stale_after_seconds
        fresh = self._freshness.fresh
        if not fresh(self._boottime(), bound):
            return None
        verdict, checks = _decide(caller, request, version, now, explained=explained, proven=proven)
        return self._finish(verdict, request, checks, now) if fresh(self._boottime(), bound) else None

    async def _from_memory(self, caller: ProvenCaller, request: Request, *, explained: bool) -> VerifyResponse | None:
        """Decide with what a look-up or a slow proof adds; None when the node is not fresh (any more)."""
        answer = self._decide_now(caller, request, self._now(), explained=explained)
        if answer is not None or not self._fresh(caller.stale_after_seconds):
            return answer
        version, slow = self._locate(self._replica, caller, request)
        if version is None and not slow:
            view = await self._lookup.unknown(caller.workspace, request)
            # What the follower has brought meanwhile is newer than the look-up.
            version, slow = self._locate(self._replica, caller, request)
            if version is None and not slow and view is not None:
                version, slow = self._locate(view, caller, request)
        if not slow:
            return self._decide_fresh(caller, request, version, self._now(), explained=explained)
        version = await self._slow.prove(request.presented, slow)
        if version is None:
            return self._decide_fresh(caller, request, None, self._now(), explained=explained)
        current = self._replica.version(version.id) or version
        proven = current.digest == version.digest
        return self._decide_fresh(caller, request, current, self._now(), explained=explained, proven=proven)

    # --- the database ---------------------------------------------------------------------------------------------

    async def _read_through(self, credentials: Credentials, request: Request, *, explained: bool) -> VerifyResponse:
        """Decide about caller and key as one snapshot has them."""
        self._proofs.require_plausible(credentials)
        caller, view = await self._lookup.read_through(credentials, request)
        version, slow = self._locate(view, caller, request)
        if slow:
            version = await self._slow.prove(request.presented, slow)
        now = self._now()
        verdict, checks = _decide(caller, request, version, now, explained=explained, proven=bool(slow))
        return self._finish(verdict, request, checks, now)

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
        self, verdict: Allowed | Denied, request: Request, checks: Sequence[Check] | None, now: float
    ) -> VerifyResponse:
        version = verdict.version
        if version is None:
            return self._answer(verdict, checks)
        self._usage.count(version, verdict.code.value, request, now)
        if not verdict or checks is not None:
            return self._answer(verdict, checks)
        if outdated(version):
            self._rehasher.offer(version, request.presented)
        held = self._answers.get(version.id)
        return held[1] if held is not None and held[0] is version else self._remember(verdict, version)

    def _remember(self, verdict: Allowed | Denied, version: VersionPolicy) -> VerifyResponse:
        """Keep the answer that admits a version for as long as nothing about the version changes."""
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.clear()
        answer = self._answer(verdict)
        self._answers[version.id] = (version, answer, _encode(answer))
        return answer

    def _answer(self, verdict: Allowed | Denied, checks: Sequence[Check] | None = None) -> VerifyResponse:
        code = verdict.code.value
        reports = None if checks is None else tuple(CheckReport(c.name, c.verdict, c.source, c.detail) for c in checks)
        version = verdict.version
        if version is None:
            return VerifyResponse(valid=False, code=code, checks=reports)
        return VerifyResponse(
            valid=bool(verdict),
            code=code,
            key_id=version.key_id,
            version_id=version.id,
            keyspace=version.keyspace.name,
            owner=version.owner,
            environment=version.environment,
            name=version.name,
            scopes=version.scopes,
            expires_at=None if version.expires_at is None else rfc3339(version.expires_at),
            metadata=version.metadata(),
            checks=reports,
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
    )


def _shown(_keyspace: KeyspacePolicy) -> bool:
    return True


def _hidden(_keyspace: KeyspacePolicy) -> bool:
    return False
