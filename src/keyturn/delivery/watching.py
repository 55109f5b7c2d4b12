"""Watch what a process was given: a long poll for news, and a second look at folders for secrets that are new.

news      paths changed -> read everything again -> other versions -> tell
no answer nothing changes; asked again after a wait that grows, drawn at random
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, final

from keyturn import errors
from keyturn.client.transport import pause
from keyturn.delivery.selection import collect, names_of
from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.delivery.selection import Collected, Source

WAIT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 30.0
"""How often folders are listed again."""
CONFIRM_SECONDS: Final = 60.0
REFUSED_SECONDS: Final = 30.0
_EARLY_SECONDS: Final = 0.5
_STEADY: Final = 5
"""The pause after this many failures is up to 1.6 s."""


@final
class Watcher:
    """Tells of changes until it is stopped; nothing is raised."""

    def __init__(
        self,
        source: Source,
        collected: Collected,
        cursor: str | None,
        *,
        tell: Callable[[Collected], None],
        report: Callable[[str], None],
        confirm: Callable[[Collected], None] | None = None,
        now: Callable[[], float] = boottime,
    ) -> None:
        """Begin with what was read; with a cursor from before the reading, nothing in between is missed."""
        self._source = source
        self._collected = collected
        self._cursor = cursor
        self._tell = tell
        self._report = report
        self._confirm = confirm
        self._confirm_at = now() + CONFIRM_SECONDS
        self._now = now
        self._look_at = now() + LOOK_SECONDS
        self._failed = 0
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watch in a thread of its own, which ends with the process."""
        threading.Thread(target=self.run, name="keyturn-watch", daemon=True).start()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._stopped.set()

    def run(self) -> None:
        """Watch until stopped."""
        while not self._stopped.is_set():
            try:
                wait = self.step()
            except (errors.UnavailableError, errors.ThrottledError) as error:
                self._complain(error, "still using what was read before")
                wait = pause(self._failed)
            except errors.KeyturnError as error:
                self._complain(error, "the change was not taken over")
                wait = REFUSED_SECONDS / 2 + pause(16) * REFUSED_SECONDS / 10
            except Exception as error:  # noqa: BLE001 -- a thread has nobody to raise to
                self._failed += 1
                self._report(f"watching failed: {type(error).__name__}")
                wait = pause(self._failed)
            self._stopped.wait(wait)

    def step(self) -> float:
        """Ask once, and take over what is new; return how long to wait."""
        began = self._now()
        known = self._collected
        waiting = WAIT_SECONDS if self._cursor is not None else 0.0
        news = self._source.secret_news(known.paths, self._cursor, waiting)
        named = self._looked()
        if news.changed or named is not None or self._cursor is None:
            fresh = collect(self._source, known.selection, named or known.named)
            if not fresh.says_the_same(known) and not self._stopped.is_set():
                self._tell(fresh)
            self._collected = fresh
        self._cursor = news.cursor
        if self._confirm is not None and self._now() >= self._confirm_at:
            self._confirm_at = self._now() + CONFIRM_SECONDS
            self._confirm(self._collected)
        if self._failed:
            self._failed = 0
            self._report("the server answers again")
        early = not news.changed and self._now() - began < _EARLY_SECONDS
        return pause(_STEADY) if early else 0.0

    def _looked(self) -> dict[str, str] | None:
        """List folders again when it is time; return the names when they are others than before."""
        known = self._collected
        if not known.selection.folders or self._now() < self._look_at:
            return None
        self._look_at = self._now() + LOOK_SECONDS
        named = names_of(self._source, known.selection)
        return named if named != known.named else None

    def _complain(self, error: errors.KeyturnError, outcome: str) -> None:
        self._failed += 1
        if self._failed == 1:
            self._report(f"{error.message.rstrip('.')} [{error.code}]; {outcome}")
