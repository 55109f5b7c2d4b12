"""The thread that sends back what a verifier has counted.

    counts --every second--> batch -> journal (synced) -> queue -> server -> acknowledged in the journal

Without a journal, what is not with the server when the process is killed is lost; with one, about a second of it.
A batch that the server has never acknowledged is sent again, and counts once.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, final

from keyturn import errors
from keyturn.client.counting import UsageCounts, total
from keyturn.client.journal import Journal
from keyturn.client.transport import pause, read, unreachable
from keyturn.wire.replication import UsageAccepted

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from keyturn.client.transport import Endpoint
    from keyturn.wire.replication import UsageBatch

EVERY_SECONDS: Final = 1.0
SEND_SECONDS: Final = 10.0
STOP_SECONDS: Final = 3.0
WAITING_MAX: Final = 1000
"""Batches that wait to be sent; past it the oldest is lost, and counted."""

_NEVER: Final = (errors.InputError, errors.NotFoundError, errors.ConflictError)
"""What a server says to a batch that it will never take."""


@final
class Reporter:
    """Sends usage until it is stopped."""

    def __init__(self, endpoint: Endpoint, folder: Path | None, lock: threading.Lock) -> None:
        """Send what is counted in `counts` under `lock`; keep it in a journal in `folder`, when there is one."""
        self.counts = UsageCounts()
        self._endpoint = endpoint
        self._folder = folder
        self._lock = lock
        self._journal: Journal | None = None
        self._waiting: deque[UsageBatch] = deque()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent = 0
        self.refused = 0
        self.lost = 0
        self.failures = 0

    def start(self) -> None:
        """Open the journal, and start.  Raises ConfigError when the journal cannot be kept."""
        if self._folder is not None:
            self._journal = Journal(self._folder)
            self._waiting.extend(self._journal.inherited)
        self._thread = threading.Thread(target=self._run, name="keyturn-report", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, for some seconds at most, and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def abandon(self) -> None:
        """Let go of what belongs to the parent of this process."""
        if self._journal is not None:
            self._journal.abandon()

    def counters(self) -> dict[str, int]:
        """Return what was counted, is with the server, and was lost."""
        with self._lock:
            counted, dropped = self.counts.counted, self.counts.dropped
        lost = self.lost + dropped + self.refused
        return {"counted": counted, "reported": self.sent, "lost": lost, "waiting": len(self._waiting)}

    def _run(self) -> None:
        import httpx  # 230 ms, in the thread

        failed = 0
        with httpx.Client(timeout=SEND_SECONDS, follow_redirects=False) as http:
            while not self._stopping.is_set():
                self._stopping.wait(EVERY_SECONDS if not failed else EVERY_SECONDS + pause(failed))
                self._take()
                failed = 0 if self._send_all(http) else failed + 1
            self._take()
            self._send_all(http)
        if self._journal is not None:
            self._journal.close()

    def _take(self) -> None:
        """Move what was counted into the journal and the queue."""
        with self._lock:
            batch = self.counts.take()
        if batch is None:
            return
        if self._journal is not None and not self._journal.append(batch):
            self.failures += 1
        self._waiting.append(batch)
        while len(self._waiting) > WAITING_MAX:
            self._lose(self._waiting.popleft())

    def _send_all(self, http: httpx.Client) -> bool:
        """Send what waits, oldest first; False when the server could not take it now."""
        while self._waiting:
            batch = self._waiting[0]
            try:
                accepted = self._send(http, batch)
            except _NEVER:
                self.failures += 1
                self._lose(batch)
            except Exception:  # noqa: BLE001 -- counted, and tried again
                self.failures += 1
                return False
            else:
                self.sent += total(batch) if accepted.repeated else accepted.counted
                self.refused += accepted.refused
            self._waiting.popleft()
            if self._journal is not None:
                self._journal.acknowledge(batch.batch_id)
        return True

    def _send(self, http: httpx.Client, batch: UsageBatch) -> UsageAccepted:
        import httpx as library

        call = self._endpoint.call("POST", "/usage/batches", batch, repeatable=True)
        try:
            answer = http.request(call.method, call.url, headers=call.headers, content=call.body)
        except library.HTTPError as error:
            raise unreachable(self._endpoint.url, error) from error
        return read(answer.status_code, answer.headers, answer.content, UsageAccepted)

    def _lose(self, batch: UsageBatch) -> None:
        self.lost += total(batch)
        with self._lock:
            # The next batch says so.
            self.counts.lost += total(batch) + batch.lost
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.acknowledge(batch.batch_id)
