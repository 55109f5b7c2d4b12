"""Held secrets in a program: callables that give the current value, kept up to date by one long poll.

    stripe = keyturn.secret("production/payments/stripe", field="key")
    charge(api_key=stripe())          # the current version's, also after a rotation

    first use   ask for a cursor -> read -> poll with the cursor, so that no change falls between
    news        paths that changed -> read each again -> tell whoever asked to be told
    no answer   the last value stays in use until it is older than its bound, then calling it raises StaleError
    refusal     each path is asked for alone, so that one that was taken away does not hold up the others

`Feed` decides what to ask next and keeps what came, without I/O; a thread or a task does the asking.  Nothing is
raised in the background: what went wrong is kept, in `last_failure` of each handle.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

from keyturn import errors
from keyturn.client.transport import pause
from keyturn.kernel.clock import boottime

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.client.api import AsyncKeyturn, Keyturn
    from keyturn.wire.secrets import SecretNews, SecretValue

BINARY: Final = "$binary"
"""A field that is bytes is the JSON object of this one member, with the bytes in base64."""
STALE_AFTER_SECONDS: Final = 3600.0
WAIT_SECONDS: Final = 10.0
"""How long a poll waits for news."""
JOINED_SECONDS: Final = 5.0
JOINED_WAIT_SECONDS: Final = 0.5
"""Programs ask for several secrets at start: polls are short then, because one that is out does not name the next."""
PATHS_MAX: Final = 200
"""How many secrets one client follows: as many as one poll may name."""
REFUSED_SECONDS: Final = 30.0
"""How long a path that was refused is left out of the polls."""
EARLY_SECONDS: Final = 0.5
PAUSE_ATTEMPT: Final = 4
"""A server that says at once that nothing is new is about to stop: up to 0.8 s until it is asked again."""

_REFUSALS: Final = (errors.ForbiddenError, errors.NotFoundError, errors.InputError)


def plain(content: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return a field as an application has it: bytes as bytes, all else as it is in JSON."""
    if isinstance(content, dict) and set(content) == {BINARY} and isinstance(content[BINARY], str):
        try:
            return base64.b64decode(content[BINARY], validate=True)
        except ValueError:
            return content
    return content


@final
class Fields(Mapping[str, Any]):
    """The fields of a version, read only; its repr shows their names."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Hold a copy."""
        self._fields = {name: plain(content) for name, content in fields.items()}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 -- JSON
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Fields({', '.join(self._fields)})"


@dataclass(slots=True)
class Held:
    """What is known of one path."""

    value: SecretValue = field(repr=False)
    confirmed_at: float
    """When the question was sent that last showed it to be current, in boottime."""
    refused_until: float = 0.0
    failure: BaseException | None = None
    listeners: list[Callable[[], Any]] = field(default_factory=list, repr=False)


@final
class HeldSecret:
    """A held secret: calling it gives the current value.

    That is the field that was named, or the only field of a secret that has one, or else all of them as a read-only
    mapping.  Text is str, bytes are bytes, all else is what it is in JSON.  It raises StaleError when nothing has
    shown the value to be current for `stale_after_seconds`, and NotFoundError when the current version has no such
    field.
    """

    __slots__ = ("_feed", "_field", "_stale_after_seconds", "path")

    def __init__(self, feed: Feed, path: str, field_name: str | None, stale_after_seconds: float) -> None:
        """Not for callers: use `Keyturn.secret`."""
        self.path = path
        self._feed = feed
        self._field = field_name
        self._stale_after_seconds = stale_after_seconds

    def __call__(self) -> Any:  # noqa: ANN401 -- a field is JSON
        """Return the current value."""
        fields = self._feed.current(self.path, self._stale_after_seconds).fields
        if self._field is not None:
            if self._field not in fields:
                raise errors.NotFoundError(f"{self.path} has no field {self._field[:64]!r} in its current version")
            return plain(fields[self._field])
        if len(fields) == 1:
            return plain(next(iter(fields.values())))
        return Fields(fields)

    @property
    def version(self) -> int | None:
        """The number of the version that calling it gives."""
        return self._feed.held[self.path].value.version

    @property
    def age_seconds(self) -> float:
        """How long ago the value was last shown to be current."""
        return self._feed.age(self.path)

    @property
    def last_failure(self) -> BaseException | None:
        """Why the last try to refresh it failed; None when it did not."""
        return self._feed.held[self.path].failure

    def on_change(self, callback: Callable[[HeldSecret], Any]) -> None:
        """Call this with the handle after each change, in the background thread or, if it is async, in the task.

        What it raises is kept in `last_failure`.
        """
        self._feed.held[self.path].listeners.append(lambda: callback(self))

    def __repr__(self) -> str:
        return f"HeldSecret({self.path!r}, version {self.version})"


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask for news of these paths."""

    paths: tuple[str, ...]
    cursor: str | None
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read this path again."""

    path: str


class Feed:
    """Which question comes next, and what is known; its methods may be called from any thread."""

    def __init__(self, now: Callable[[], float] = boottime) -> None:
        """Know of no secret yet."""
        self.held: dict[str, Held] = {}
        self.cursor: str | None = None
        self.failed_in_a_row = 0
        self._now = now
        self._to_read: dict[str, None] = {}
        self._alone: dict[str, None] = {}
        self._joined_at = 0.0

    def ask(self) -> Poll | Read | None:
        """Return the next question; None when nothing is held."""
        if not self.held:
            return None
        if self._to_read:
            return Read(next(iter(self._to_read)))
        if self._alone:
            return Poll((next(iter(self._alone)),), self.cursor, 0.0)
        now = self._now()
        for path, one in list(self.held.items()):
            if 0.0 < one.refused_until <= now:
                # It was left out of the polls, so that what they said is not about it.
                one.refused_until = 0.0
                self._to_read[path] = None
                return Read(path)
        asked = tuple(path for path, one in list(self.held.items()) if not one.refused_until)
        wait_seconds = JOINED_WAIT_SECONDS if now - self._joined_at < JOINED_SECONDS else WAIT_SECONDS
        return Poll(asked, self.cursor, wait_seconds) if asked else None

    def told(self, poll: Poll, news: SecretNews, sent: float) -> float:
        """Take in an answer to a poll; return how long to wait before the next question."""
        self.failed_in_a_row = 0
        changed = set(news.changed)
        for path in poll.paths:
            if (one := self.held.get(path)) is None:
                continue
            if path in changed:
                self._to_read[path] = None
            else:
                one.confirmed_at, one.failure = max(one.confirmed_at, sent), None
        self._alone.pop(poll.paths[0], None)
        if all(path in poll.paths or one.refused_until for path, one in list(self.held.items())):
            # Else it would skip news of those that were not asked for.
            self.cursor = news.cursor
        early = not changed and self._now() - sent < min(poll.wait_seconds, EARLY_SECONDS) * 0.9
        return pause(PAUSE_ATTEMPT) if early else 0.0

    def read(self, path: str, value: SecretValue, sent: float) -> list[Callable[[], Any]]:
        """Take in what a path holds; return whom to tell."""
        self.failed_in_a_row = 0
        self._to_read.pop(path, None)
        one = self.held.get(path)
        if one is None:
            self.held[path] = Held(value, sent)
            self._joined_at = sent
            return []
        # Two threads may read at once: the later question counts.
        if sent < one.confirmed_at:
            return []
        changed = (one.value.id, one.value.sequence) != (value.id, value.sequence) or one.value.fields != value.fields
        one.value, one.confirmed_at, one.failure, one.refused_until = value, sent, None, 0.0
        return list(one.listeners) if changed else []

    def failed(self, asked: Poll | Read, error: BaseException) -> float:
        """Take in that there was no answer, or a refusal; return how long to wait."""
        paths = asked.paths if isinstance(asked, Poll) else (asked.path,)
        if isinstance(error, _REFUSALS):
            if len(paths) > 1:
                self._alone = dict.fromkeys(paths)
                return 0.0
            for path in paths:
                self._refused(path, error)
            return 0.0
        self.failed_in_a_row += 1
        for path in paths:
            if path in self.held:
                self.held[path].failure = error
        return pause(self.failed_in_a_row)

    def current(self, path: str, stale_after_seconds: float) -> SecretValue:
        """Return what a path holds; raises StaleError when that was not shown for too long."""
        one = self.held[path]
        age = self._now() - one.confirmed_at
        if age > stale_after_seconds:
            raise errors.StaleError(
                f"{path} was last seen to be current {age:.1f} s ago; expected at most {stale_after_seconds:g} s",
                hint="see `last_failure` of the secret for why it is not refreshed",
                internal=type(one.failure).__name__,
            ) from one.failure
        return one.value

    def age(self, path: str) -> float:
        """Return how long ago a path was shown to be current."""
        return max(0.0, self._now() - self.held[path].confirmed_at)

    def now(self) -> float:
        """Return the boottime, for the moment a question is sent."""
        return self._now()

    def needs(self, path: str, stale_after_seconds: float) -> bool:
        """Say whether a path has to be read before it is handed out; raises CapError when no other can be followed."""
        if path in self.held:
            return self.age(path) > stale_after_seconds
        if len(self.held) >= PATHS_MAX:
            raise errors.CapError(f"one client follows at most {PATHS_MAX} secrets", hint="use another client")
        return True

    def _refused(self, path: str, error: BaseException) -> None:
        self._to_read.pop(path, None)
        self._alone.pop(path, None)
        if (one := self.held.get(path)) is not None:
            one.failure, one.refused_until = error, self._now() + REFUSED_SECONDS


@final
class FollowingThread:
    """Follows the secrets of a `Keyturn` in one thread, started by the first of them."""

    def __init__(self, client: Keyturn) -> None:
        """Nothing is asked yet."""
        self.feed = Feed()
        self._client = client
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, path: str, field_name: str | None, stale_after_seconds: float) -> HeldSecret:
        """Read a path now unless it is held already, and follow it."""
        feed = self.feed
        with self._lock:
            if self._stopped.is_set():
                raise errors.UnavailableError("the client is closed")
            if feed.cursor is None:
                feed.cursor = self._client.secret_news([path]).cursor
            if feed.needs(path, stale_after_seconds):
                sent = feed.now()
                feed.read(path, self._client.read_secret(path), sent)
            handle = HeldSecret(feed, path, field_name, stale_after_seconds)
            handle()
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="keyturn-secrets", daemon=True)
                self._thread.start()
        return handle

    def close(self) -> None:
        """End the thread; a poll that waits is not waited for."""
        self._stopped.set()

    def _follow(self) -> None:
        while not self._stopped.is_set():
            asked = self.feed.ask()
            if asked is None:
                self._stopped.wait(1.0)
                continue
            try:
                self._stopped.wait(self._step(asked))
            except Exception as error:  # noqa: BLE001 -- kept for who asks, and tried again
                self._stopped.wait(self.feed.failed(asked, error))

    def _step(self, asked: Poll | Read) -> float:
        sent = self.feed.now()
        if isinstance(asked, Poll):
            news = self._client.secret_news(asked.paths, asked.cursor, asked.wait_seconds)
            return self.feed.told(asked, news, sent)
        for tell in self.feed.read(asked.path, self._client.read_secret(asked.path), sent):
            try:
                tell()
            except Exception as error:  # noqa: BLE001 -- the callback is the application's
                self.feed.held[asked.path].failure = error
        return 0.0


@final
class FollowingTask:
    """Follows the secrets of an `AsyncKeyturn` in one task, started by the first of them."""

    def __init__(self, client: AsyncKeyturn) -> None:
        """Nothing is asked yet."""
        self.feed = Feed()
        self._client = client
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def hold(self, path: str, field_name: str | None, stale_after_seconds: float) -> HeldSecret:
        """Read a path now unless it is held already, and follow it."""
        feed = self.feed
        async with self._lock:
            if self._closed:
                raise errors.UnavailableError("the client is closed")
            if feed.cursor is None:
                feed.cursor = (await self._client.secret_news([path])).cursor
            if feed.needs(path, stale_after_seconds):
                sent = feed.now()
                feed.read(path, await self._client.read_secret(path), sent)
            handle = HeldSecret(feed, path, field_name, stale_after_seconds)
            handle()
            if self._task is None:
                self._task = asyncio.create_task(self._follow(), name="keyturn-secrets")
        return handle

    async def close(self) -> None:
        """End the task."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            asked = self.feed.ask()
            if asked is None:
                await asyncio.sleep(1.0)
                continue
            try:
                await asyncio.sleep(await self._step(asked))
            except Exception as error:  # noqa: BLE001 -- kept for who asks, and tried again
                await asyncio.sleep(self.feed.failed(asked, error))

    async def _step(self, asked: Poll | Read) -> float:
        sent = self.feed.now()
        if isinstance(asked, Poll):
            news = await self._client.secret_news(asked.paths, asked.cursor, asked.wait_seconds)
            return self.feed.told(asked, news, sent)
        for tell in self.feed.read(asked.path, await self._client.read_secret(asked.path), sent):
            try:
                waiting = tell()
                if hasattr(waiting, "__await__"):
                    await waiting
            except Exception as error:  # noqa: BLE001 -- the callback is the application's
                self.feed.held[asked.path].failure = error
        return 0.0
