"""`Verifier`: keys verified in the application's own process, by the same rules as in the server.

    verifier = Verifier("https://keys.example.com", token, keyspaces=["orders"])
    if verifier.verify(presented, scopes="orders:read", ip=address):
        ...

    keyturn-follow     registers, loads a snapshot, then waits for changes in long polls
    keyturn-confirm    tells the server how far this process is, and learns how fresh that makes it
    keyturn-report     sends back what was counted

`verify` answers from memory while this process is fresh: until `stale_after_seconds` of the keyspace after the last
confirm, whether the server can be reached or not.  After that `on_stale` decides; a stale replica never admits.
Freshness is checked before the decision and again after it.  What memory cannot decide (a quota, an exact limit, an
imported slow digest, a key that is not known yet) is asked of the server, which blocks: `await averify` in
asynchronous code.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
import threading
import weakref
from typing import TYPE_CHECKING, Final, Literal, Self

from keyturn import errors
from keyturn.client.following import Following
from keyturn.client.model import Verification
from keyturn.client.reporting import Reporter
from keyturn.client.transport import Endpoint
from keyturn.client.verdicts import Undecided, Verdicts
from keyturn.kernel.clock import Clock
from keyturn.verify.model import Request
from keyturn.wire.verification import Code, VerifyRequest, VerifyResponse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from keyturn.client.api import Keyturn
    from keyturn.kernel.secret import Secret
    from keyturn.wire.verification import LimitUse, QuotaUse

LimitsMode = Literal["local", "server", "off"]
StalePolicy = Literal["unavailable", "server"]
READY_SECONDS: Final = 10.0
ASK_SECONDS: Final = 5.0
LABEL_CHARS_MAX: Final = 128

_UNAVAILABLE: Final = Verification(VerifyResponse(valid=False, code=Code.UNAVAILABLE))
_alive: Final[weakref.WeakSet[Verifier]] = weakref.WeakSet()


class Verifier:
    """Verifies keys from memory; safe to share between threads, and used again after a fork.

    `keyspaces` are the names of those to replicate; without it all that the token holds `keyspace.replicate` on.
    `limits` is `local` (each of `share` processes keeps its part of every limit in its own memory), `server` (each
    charge is a call) or `off` (not kept here).  Quotas always go through the server.  `on_stale` is `unavailable`
    (deny) or `server` (ask it for each key) once this process is no longer fresh.  `journal_dir` keeps usage that is
    not yet with the server over a crash.
    Raises ConfigError when it cannot be set up; a server that cannot be reached is tried again and again.
    """

    def __init__(  # noqa: PLR0913 -- each is a choice of the application
        self,
        url: str,
        token: str | Secret,
        keyspaces: Sequence[str] | None = None,
        *,
        limits: LimitsMode = "local",
        share: int = 1,
        on_stale: StalePolicy = "unavailable",
        journal_dir: str | os.PathLike[str] | None = None,
        label: str | None = None,
        timeout_seconds: float = ASK_SECONDS,
        allow_insecure: bool = False,
        start: bool = True,
    ) -> None:
        """Set up, and begin to load unless `start` is False; `verify` begins otherwise."""
        if limits not in {"local", "server", "off"} or on_stale not in {"unavailable", "server"} or share < 1:
            raise errors.ConfigError("expected limits local, server or off, on_stale unavailable or server, share >= 1")
        if keyspaces is not None and not keyspaces:
            raise errors.ConfigError("expected at least one keyspace, or None for all that may be replicated")
        self._endpoint = Endpoint(url, token, allow_insecure=allow_insecure)
        self._token = token
        self._keyspaces = tuple(keyspaces or ())
        self._limits: LimitsMode = limits
        self._share = share
        self._asks_when_stale = on_stale == "server"
        self._journal_dir = journal_dir
        self._label = label
        self._timeout = timeout_seconds
        self._allow_insecure = allow_insecure
        self._closed = False
        self._starting = threading.Lock()
        self._setup()
        _alive.add(self)
        if start:
            self.start()

    def _setup(self) -> None:
        """Make everything that belongs to one process."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._clock = Clock()
        self._follower = Following(self._endpoint, self._keyspaces, self._named(), self._clock, self._lock)
        self._reporter = Reporter(self._endpoint, self._journal_folder(), self._lock)
        self._verdicts = Verdicts(
            self._follower.feed, self._reporter.counts, self._clock, self._lock, limits=self._limits, share=self._share
        )
        self._server: Keyturn | None = None
        self._started = False

    def __repr__(self) -> str:
        return f"Verifier({self._endpoint.url!r}, keyspaces={list(self._keyspaces)})"

    def __enter__(self) -> Self:
        """Start, and wait a while until it is ready; a server that cannot be reached is no error."""
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to load and to follow; harmless when it has started."""
        with self._starting:
            if self._started or self._closed:
                return
            self._reporter.start()
            self._follower.start()
            self._started = True

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> bool:
        """Wait until keys can be verified from memory; False when that takes longer."""
        self.start()
        return self._follower.wait_ready(timeout_seconds)

    @property
    def ready(self) -> bool:
        """Whether keys of every replicated keyspace can be verified from memory now."""
        return self._follower.is_ready()

    def close(self) -> None:
        """Stop to verify, send what was counted, and leave; takes a few seconds at most when there is no answer."""
        with self._starting:
            if self._closed:
                return
            self._closed = True
        self._follower.stop()
        if self._started:
            self._reporter.stop()
        if self._server is not None:
            self._server.close()

    async def aclose(self) -> None:
        """Close, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def counters(self) -> dict[str, int]:
        """Return numbers for the metrics of the application."""
        return {**self._follower.counters(), **self._verdicts.counters(), **self._reporter.counters()}

    # --- verify ---------------------------------------------------------------------------------------------------

    def verify(  # noqa: PLR0913 -- what may be told of a call
        self,
        key: str,
        *,
        scopes: str | None = None,
        ip: str | None = None,
        origin: str | None = None,
        method: str | None = None,
        path: str | None = None,
        user_agent: str | None = None,
        keyspace: str | None = None,
        cost: int = 1,
        limits: Sequence[LimitUse] = (),
        quotas: Sequence[QuotaUse] = (),
        explain: bool = False,
        country: str | None = None,
    ) -> Verification:
        """Verify a presented key; what is None is not told, and a restriction that needs it denies.

        Never raises for want of an answer: that is the code UNAVAILABLE, which denies.
        Raises InputError when the scope query, or what is to be charged, is malformed.
        """
        request = Request(
            key,
            scopes,
            ip,
            origin,
            method,
            path,
            user_agent,
            None,
            keyspace,
            country,
            cost,
            tuple(limits) if limits else (),
            tuple(quotas) if quotas else (),
        )
        found = self._verdicts.decide(request, explained=explain) if self._started else self._begin(request, explain)
        return found if isinstance(found, Verification) else self._other(found, request, explain)

    async def averify(  # noqa: PLR0913 -- what may be told of a call
        self,
        key: str,
        *,
        scopes: str | None = None,
        ip: str | None = None,
        origin: str | None = None,
        method: str | None = None,
        path: str | None = None,
        user_agent: str | None = None,
        keyspace: str | None = None,
        cost: int = 1,
        limits: Sequence[LimitUse] = (),
        quotas: Sequence[QuotaUse] = (),
        explain: bool = False,
        country: str | None = None,
    ) -> Verification:
        """Verify as `verify` does; when the server has to be asked, the event loop goes on meanwhile."""
        request = Request(
            key,
            scopes,
            ip,
            origin,
            method,
            path,
            user_agent,
            None,
            keyspace,
            country,
            cost,
            tuple(limits) if limits else (),
            tuple(quotas) if quotas else (),
        )
        found = self._verdicts.decide(request, explained=explain) if self._started else self._begin(request, explain)
        if isinstance(found, Verification):
            return found
        return await asyncio.to_thread(self._other, found, request, explain)

    def release(self, slots: Sequence[str]) -> int:
        """Give back slots of concurrency limits when the call ends; return how many were still held."""
        if not slots:
            return 0
        here = self._verdicts.release(slots)
        if here or self._limits == "local":
            return here
        with contextlib.suppress(errors.KeyturnError):
            return self._keyturn().release(slots)
        return 0

    async def arelease(self, slots: Sequence[str]) -> int:
        """Give back slots, without blocking the event loop."""
        if self._limits == "local":
            return self.release(slots)
        return await asyncio.to_thread(self.release, slots)

    def _begin(self, request: Request, explained: bool) -> Verification | Undecided:  # noqa: FBT001 -- the hot path
        self.start()
        return self._verdicts.decide(request, explained=explained)

    def _other(self, why: Undecided, request: Request, explained: bool) -> Verification:  # noqa: FBT001 -- as above
        """Answer what memory did not: ask the server, or deny."""
        if not self._closed and (why is Undecided.ASK or self._asks_when_stale):
            return self._ask(request, explained)
        self._verdicts.unanswered(asked=False)
        return _UNAVAILABLE

    def _ask(self, request: Request, explained: bool) -> Verification:  # noqa: FBT001 -- as above
        self._verdicts.ask()
        try:
            return self._keyturn().ask(_asked(request, explained=explained))
        except errors.InputError:
            raise
        except errors.KeyturnError:
            self._verdicts.unanswered(asked=True)
            return _UNAVAILABLE

    def _keyturn(self) -> Keyturn:
        with self._starting:
            if self._server is None:
                from keyturn.client.api import Keyturn  # it brings httpx, which is slow to import

                self._server = Keyturn(
                    self._endpoint.url,
                    self._token,
                    timeout_seconds=self._timeout,
                    allow_insecure=self._allow_insecure,
                )
            return self._server

    # --- processes ------------------------------------------------------------------------------------------------

    def _named(self) -> str:
        return (self._label or f"{socket.gethostname()}/{os.getpid()}")[:LABEL_CHARS_MAX]

    def _journal_folder(self) -> Path | None:
        from pathlib import Path

        return None if self._journal_dir is None else Path(self._journal_dir)

    def _after_fork(self) -> None:
        """Begin anew in a child: threads, connections, registration and journal are the parent's."""
        self._reporter.abandon()
        self._starting = threading.Lock()
        self._setup()


def _after_fork_in_child() -> None:
    for verifier in list(_alive):
        verifier._after_fork()  # noqa: SLF001 -- this module's own


def _asked(request: Request, *, explained: bool) -> VerifyRequest:
    return VerifyRequest(
        key=request.presented,
        scopes=request.scopes,
        ip=request.ip,
        origin=request.origin,
        method=request.method,
        path=request.path,
        user_agent=request.user_agent,
        keyspace=request.keyspace,
        explain=explained,
        cost=request.cost,
        limits=request.limits,
        quotas=request.quotas,
        country=request.country,
    )


def _at_exit() -> None:
    for verifier in list(_alive):
        with contextlib.suppress(Exception):
            verifier.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
