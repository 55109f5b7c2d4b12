"""The confirming thread: registers this node, and proves to the database and to itself that it is fresh.

It runs beside the event loop, so that a busy loop does not make a healthy node look dead.  It confirms every
`CONFIRM_EVERY_SECONDS`, and at once when somebody waits for a number this node has just applied.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.kernel.clock import Clock
    from keyturn.storage.database import Database
    from keyturn.storage.nodes import Confirmation

CONFIRM_EVERY_SECONDS = 0.5


class Confirmed(Protocol):
    """Told of each confirm: boottime before it was sent and after it was answered, and what it proved."""

    def __call__(self, sent: float, received: float, confirmation: Confirmation) -> None:
        """Extend freshness and learn the time; runs in the confirming thread."""
        ...


class Confirmer:
    """Confirms one node until stopped.  A `Position` of the follower (see `keyturn.storage.follower`)."""

    def __init__(
        self,
        database: Database,
        node: str,
        clock: Clock,
        *,
        confirmed: Confirmed,
        forgotten: Callable[[], None],
    ) -> None:
        """Confirm `node`; `forgotten` is called (in the thread) when the registry no longer knows it."""
        self._database = database
        self._node = node
        self._clock = clock
        self._confirmed = confirmed
        self._forgotten = forgotten
        self._log_id = ""
        self._applied = -1
        self._proven = -1
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.failures = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="keyturn-confirm", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it; blocking."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)

    def reloaded(self, log_id: str, seq: int) -> None:
        """See Position."""
        self._log_id, self._applied, self._proven = log_id, seq, -1
        self._wake.set()

    def advanced(self, seq: int, awaited: int) -> None:
        """See Position: confirm at once when somebody waits for a number not yet proven."""
        self._applied = seq
        if self._proven < awaited <= seq:
            self._wake.set()

    def lost(self) -> None:
        """See Position."""
        self._log_id, self._applied = "", -1

    def _run(self) -> None:
        while not self._stopping:
            self._confirm()
            self._wake.wait(CONFIRM_EVERY_SECONDS)
            self._wake.clear()
        self._database.close_confirm()

    def _confirm(self) -> None:
        log_id, applied = self._log_id, self._applied
        sent = self._clock.boottime()
        try:
            confirmation = self._database.confirm(self._node, log_id, applied)
        except (KeyturnError, TimeoutError):
            self.failures += 1
            return
        if not confirmation.known:
            self._forgotten()
            return
        self._proven = applied
        self._confirmed(sent, self._clock.boottime(), confirmation)
