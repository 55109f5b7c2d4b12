"""The confirming thread: proves to the database how far this node is, and to this node how fresh it is.

It runs beside the event loop, so that a busy loop does not make a healthy node look dead.  It confirms every
`CONFIRM_EVERY_SECONDS`, and at once when somebody waits for a number this node has just applied.

    loop    reloaded, advanced, lost -> one tuple (log id, applied)         thread    takes the tuple, sends, gets
            confirmed <- call_soon_threadsafe, by who is told                         the answer, tells
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

from keyturn.storage.rounds import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.kernel.clock import Clock
    from keyturn.storage.database import Database
    from keyturn.storage.nodes import Confirmation

CONFIRM_EVERY_SECONDS = 0.5
STOP_SECONDS = 10.0
_NOWHERE = ("", -1)


class Confirmed(Protocol):
    """Told of each confirm: boottime before it was sent and after it was answered, and what it proved."""

    def __call__(self, sent: float, received: float, confirmation: Confirmation, /) -> None:
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
        every_seconds: float = CONFIRM_EVERY_SECONDS,
    ) -> None:
        """Confirm `node`; `forgotten` is called (in the thread) each time the registry does not know it."""
        self._database = database
        self._node = node
        self._clock = clock
        self._confirmed = confirmed
        self._forgotten = forgotten
        self._every = every_seconds
        # One object, replaced as a whole: the thread never sees the number of one log with the name of another.
        self._position = _NOWHERE
        self._proven = _NOWHERE
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.trouble = Trouble("this node cannot confirm")

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="keyturn-confirm", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it; blocking."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    @property
    def proven(self) -> int:
        """The number up to which the registry is known to show this node; -1 before the first confirm."""
        return self._proven[1]

    def reloaded(self, log_id: str, seq: int) -> None:
        """See Position."""
        self._position = (log_id, seq)
        self._wake.set()

    def advanced(self, seq: int, awaited: int) -> None:
        """See Position: confirm at once when somebody waits for a number not yet proven."""
        log_id, _ = self._position
        self._position = (log_id, seq)
        proven_log, proven = self._proven
        if awaited <= seq and (proven < awaited or proven_log != log_id):
            self._wake.set()

    def lost(self) -> None:
        """See Position."""
        self._position = _NOWHERE

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._confirm()
            except Exception as error:  # noqa: BLE001 -- counted, logged, and tried again
                self.trouble.met(error)
            else:
                self.trouble.over()
            self._wake.wait(self._every)
            # Cleared before the position is read again, so that no wake-up is lost.
            self._wake.clear()
        self._database.close_confirm()

    def _confirm(self) -> None:
        position = self._position
        sent = self._clock.boottime()
        confirmation = self._database.confirm(self._node, *position)
        received = self._clock.boottime()
        if not confirmation.known:
            self._forgotten()
            return
        self._proven = position
        self._confirmed(sent, received, confirmation)
