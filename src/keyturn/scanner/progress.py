"""A line on standard error that says how far a long scan is: on a terminal alone, and not in the first second."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, final

from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    from types import TracebackType

QUIET_SECONDS: Final = 1.0


@final
class Progress:
    """Counts what was scanned, and shows it when it takes long."""

    def __init__(self, *, shown: bool | None = None) -> None:
        """Show on a terminal, or when told to."""
        is_terminal = sys.stderr is not None and sys.stderr.isatty()  # who was started without one has none
        self._shown = is_terminal if shown is None else shown
        self._begin = boottime() + QUIET_SECONDS
        self._bar: Any = None
        self._task: Any = None
        self._documents = self._bytes = self._findings = 0

    def __enter__(self) -> Progress:
        """Start counting."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.stop()

    def add(self, documents: int, read: int, findings: int) -> None:
        """Count what one more piece held."""
        self._documents += documents
        self._bytes += read
        self._findings += findings
        self.tick()

    def tick(self) -> None:
        """Show the counts, when it is time to."""
        if not self._shown or (self._bar is None and boottime() < self._begin):
            return
        if self._bar is None:
            self._start()
        text = f"{self._documents} files, {self._bytes / 1e6:.0f} MB, {self._findings} hits"
        self._bar.update(self._task, description=f"scanning: {text}")

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=5)
        self._bar.start()
        self._task = self._bar.add_task("scanning", total=None)
