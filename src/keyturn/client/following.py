"""The threads that keep a verifier's replica in step, and tell the server how far it is."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import msgspec

from keyturn import errors
from keyturn.client.replication import Changes, Feed, Leave, Load, Page, Poll, Register
from keyturn.client.transport import pause, read, segment, unreachable
from keyturn.wire.replication import ConfirmedReplica, ConfirmReplica, RegisteredVerifier, RegisterVerifier

if TYPE_CHECKING:
    import httpx

    from keyturn.client.replication import Ask
    from keyturn.client.transport import Call, Endpoint
    from keyturn.kernel.clock import Clock

T = TypeVar("T")

CONNECT_SECONDS: Final = 5.0
LOAD_SECONDS: Final = 60.0
POLL_SLACK_SECONDS: Final = 5.0
CONFIRM_SECONDS: Final = 5.0
LEAVE_SECONDS: Final = 2.0
STOP_SECONDS: Final = 3.0
REFUSED_SECONDS: Final = 5.0
"""How long to wait after a refusal: somebody has to give the right back."""

_REFUSALS: Final = (errors.UnauthenticatedError, errors.ForbiddenError)


class _Left(msgspec.Struct):
    pass


@final
class Following:
    """Follows a server until it is stopped."""

    def __init__(
        self, endpoint: Endpoint, keyspaces: tuple[str, ...], label: str, clock: Clock, lock: threading.Lock
    ) -> None:
        """Follow these keyspaces, or all that may be replicated, as the node `label`."""
        self.feed = Feed(clock, lock)
        self._endpoint = endpoint
        self._keyspaces = keyspaces
        self._label = label
        self._clock = clock
        self._lock = lock
        self._stopping = threading.Event()
        self._confirm_now = threading.Event()
        self._progress = threading.Condition()
        self._threads: list[threading.Thread] = []
        self.failures = 0
        self.last_failure: BaseException | None = None

    def start(self) -> None:
        """Start the threads."""
        for name, work in (("keyturn-follow", self._follow), ("keyturn-confirm", self._confirm)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Answer nothing any more, and give the registration back; bounded when there is no answer."""
        self.feed.stop()
        self._stopping.set()
        self._confirm_now.set()
        if not self._threads:
            return
        # A poll that waits is not waited for: its thread is a daemon, and what it brings is not taken in.
        self._threads[1].join(STOP_SECONDS)
        with contextlib.suppress(errors.KeyturnError), _client(LEAVE_SECONDS) as http:
            for node in self.feed.leaving:
                self._leave(http, node)

    def is_ready(self) -> bool:
        """Tell whether every replicated keyspace is fresh now."""
        with self._lock:
            if self.feed.freshness.resync_needed:
                return False
            bounds = [one.stale_after_seconds for one in self.feed.replica.keyspaces()]
            return bool(bounds) and self.feed.freshness.fresh(self._clock.boottime(), min(bounds))

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until it is ready; False when that takes longer."""
        with self._progress:
            return self._progress.wait_for(lambda: self.is_ready() or self._stopping.is_set(), timeout_seconds) and (
                self.is_ready()
            )

    def counters(self) -> dict[str, int]:
        """Return how it went so far."""
        return {
            "applied": self.feed.freshness.applied,
            "reloads": self.feed.reloads,
            "time_jumps": self.feed.time_jumps,
            "failures": self.failures,
        }

    # --- threads --------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        failed = 0
        with _client(LOAD_SECONDS) as http:
            while not self._stopping.is_set():
                ask = self.feed.ask()
                try:
                    self._step(http, ask)
                    failed = 0
                except errors.GoneError:
                    self.feed.gone()
                except _REFUSALS as refusal:
                    self._refused(refusal)
                    if not self.feed.leaving:
                        self._stopping.wait(REFUSED_SECONDS + pause(1))
                except Exception as error:  # noqa: BLE001 -- counted, kept for who asks, and tried again
                    failed += 1
                    self._failed(error)
                    self._stopping.wait(pause(failed))
                self._progressed()

    def _confirm(self) -> None:
        with _client(CONFIRM_SECONDS) as http:
            while not self._stopping.is_set():
                try:
                    self._confirm_once(http)
                except _REFUSALS as refusal:
                    self._refused(refusal)
                except Exception as error:  # noqa: BLE001 -- as above
                    self._failed(error)
                self._progressed()
                self._confirm_now.wait(self.feed.confirm_every())
                # Cleared before the position is read again, so that no wake-up is lost.
                self._confirm_now.clear()

    # --- steps ----------------------------------------------------------------------------------------------------

    def _step(self, http: httpx.Client, ask: Ask) -> None:
        feed = self.feed
        names = ",".join(self._keyspaces) or None
        if isinstance(ask, Leave):
            self._leave(http, ask.node)
        elif isinstance(ask, Register):
            body = RegisterVerifier(self._label, self._keyspaces)
            feed.registered(self._send(http, self._endpoint.call("POST", "/replica/nodes", body), RegisteredVerifier))
        elif isinstance(ask, Load):
            query = {"keyspaces": names, "cursor": ask.cursor}
            feed.loaded(ask, self._send(http, self._endpoint.call("GET", "/replica/snapshot", query=query), Page))
            if not feed.freshness.resync_needed:
                self._confirm_now.set()
        else:
            self._poll(http, ask, names)

    def _poll(self, http: httpx.Client, ask: Poll, names: str | None) -> None:
        query = {"log_id": ask.log_id, "after": ask.after, "wait_seconds": ask.wait_seconds, "keyspaces": names}
        call = self._endpoint.call("GET", "/replica/changes", query=query)
        answer = self._send(http, call, Changes, ask.wait_seconds + POLL_SLACK_SECONDS)
        began = answer.seq > ask.after
        self.feed.changed(answer)
        if self.feed.confirm_awaited():
            self._confirm_now.set()
        if not began and answer.awaited > ask.after:
            # The server is behind what somebody waits for: give it a moment.
            self._stopping.wait(pause(1))

    def _confirm_once(self, http: httpx.Client) -> None:
        confirming = self.feed.confirming()
        if confirming is None:
            return
        sent = confirming.sent
        body = ConfirmReplica(confirming.node, sent.log_id, sent.applied, self._keyspaces)
        answer = self._send(http, self._endpoint.call("POST", "/replica/confirm", body), ConfirmedReplica)
        self.feed.confirmed(confirming, self._clock.boottime(), answer)

    def _leave(self, http: httpx.Client, node: str) -> None:
        try:
            self._send(http, self._endpoint.call("POST", f"/replica/nodes/{segment(node)}/deregister"), _Left)
        except _REFUSALS:
            # Whoever may not even say goodbye is forgotten by the server in time.
            self.failures += 1
        self.feed.left(node)

    def _send(self, http: httpx.Client, call: Call, kind: type[T], seconds: float | None = None) -> T:
        import httpx  # 230 ms, in the thread

        timeout: Any = httpx.USE_CLIENT_DEFAULT
        if seconds is not None:
            timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        try:
            answer = http.request(call.method, call.url, headers=call.headers, content=call.body, timeout=timeout)
        except httpx.HTTPError as error:
            raise unreachable(self._endpoint.url, error) from error
        return read(answer.status_code, answer.headers, answer.content, kind)

    def _refused(self, refusal: errors.KeyturnError) -> None:
        self.feed.refused(refusal)
        self._failed(refusal)

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        self.last_failure = error

    def _progressed(self) -> None:
        with self._progress:
            self._progress.notify_all()


def _client(seconds: float) -> httpx.Client:
    import httpx  # 230 ms: whoever imports the package does not pay for it

    return httpx.Client(timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS), follow_redirects=False)
