"""Clocks that stand still until a test moves them."""

from keyturn.kernel.clock import Clock

START = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class ManualBoottime:
    """Seconds since boot, for anything that takes a `boottime` callable."""

    __slots__ = ("_seconds",)

    def __init__(self, seconds: float = 1000.0) -> None:
        """Start as if the machine had been up for `seconds`."""
        self._seconds = seconds

    def __call__(self) -> float:
        """Return the seconds reached."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; it never goes back, so a negative number raises ValueError."""
        if seconds < 0:
            msg = f"expected time to pass, found {seconds} s"
            raise ValueError(msg)
        self._seconds += seconds


class ManualClock(Clock):
    """A `Clock` that shows `now` until `advance` moves it.

    Clocks made with the same `elapsed` share one machine: advancing one advances all, while each has its own offset.
    """

    __slots__ = ("elapsed",)

    def __init__(self, now: float = START, *, elapsed: ManualBoottime | None = None) -> None:
        """Show `now`, in epoch seconds."""
        self.elapsed = ManualBoottime() if elapsed is None else elapsed
        super().__init__(now - self.elapsed(), boottime=self.elapsed)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed.advance(seconds)

    def step(self, seconds: float) -> None:
        """Move the offset alone, as learning another database time would; boottime does not notice."""
        here = self.boottime()
        self.learn(self.now() + seconds, here, here)
