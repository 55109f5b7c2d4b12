"""Outside sinks: where signed checkpoints go so that the database alone cannot rewrite history.

    builder --publish--> pending (bounded) --deliver, retried with growing pauses--> file | https

Each line is `{"checkpoint": "<note>"}`, the form of an export's checkpoint lines, and `keyturn audit verify --since`
reads such a file.  A sink that fails is counted and shown in health, and never holds an operation up.  When more is
waiting than fits, the oldest goes: a later checkpoint of the same log covers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec

from keyturn.errors import ConfigError, UnavailableError
from keyturn.storage.rounds import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import httpx

PENDING_MAX = 4096
BATCH_MAX = 256
REQUEST_SECONDS = 5.0
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 60.0
DRAIN_SECONDS = 3.0


class CheckpointSink(Protocol):
    """One place outside the database."""

    name: str
    """What health shows; never holds a secret."""

    async def deliver(self, lines: Sequence[str]) -> None:
        """Keep the lines, in order, durably; raises UnavailableError, and may then be given them again."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class SinkHealth:
    """How a sink is doing."""

    name: str
    delivered: int
    waiting: int
    failures: int


class FileSink:
    """Appends to a file and returns once it is on disk.  Point it at another disk, or at a write-once mount."""

    def __init__(self, path: Path) -> None:
        """Append to `path`; it is created, not its folder."""
        self.name = f"file {path}"
        self._path = path

    async def deliver(self, lines: Sequence[str]) -> None:
        """See CheckpointSink."""
        try:
            await asyncio.to_thread(self._append, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise UnavailableError(f"the checkpoint file cannot be written: {error.strerror}") from error

    async def close(self) -> None:
        """See CheckpointSink."""

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            # A short write (full disk) is made good by the next attempt, which begins on a line of its own.
            if os.fstat(descriptor).st_size and not self._ends_line():
                data = b"\n" + data
            written = os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise UnavailableError("the checkpoint file took only a part of what was written")

    def _ends_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"


class HttpsSink:
    """POSTs lines as `application/jsonl`; any 2xx answer means they are kept."""

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Deliver to `url`; `transport` replaces the network."""
        self.name = f"{urlsplit(url).scheme}://{urlsplit(url).hostname}"
        self._url = url
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def deliver(self, lines: Sequence[str]) -> None:
        """See CheckpointSink."""
        import httpx

        if self._client is None:
            self._client = httpx.AsyncClient(transport=self._transport, timeout=REQUEST_SECONDS)
        try:
            async with asyncio.timeout(2 * REQUEST_SECONDS):
                answer = await self._client.post(
                    self._url,
                    content="".join(f"{line}\n" for line in lines),
                    headers={"content-type": "application/jsonl"},
                )
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            # The text of the error may hold the address, and the address a token.
            raise UnavailableError(f"the checkpoint sink did not answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise UnavailableError(f"the checkpoint sink answered {answer.status_code}")

    async def close(self) -> None:
        """See CheckpointSink."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class Publisher:
    """Delivers to one sink in the background, in order, until it succeeds."""

    def __init__(self, sink: CheckpointSink) -> None:
        """Deliver to `sink`."""
        self._sink = sink
        self._pending: deque[str] = deque(maxlen=PENDING_MAX)
        self._news = asyncio.Event()
        self._delivered = 0
        self._trouble = Trouble(f"checkpoints cannot be delivered to {sink.name}")

    def publish(self, notes: Iterable[str]) -> None:
        """Queue notes; never blocks."""
        self._pending.extend(checkpoint_line(note) for note in notes)
        self._news.set()

    @property
    def health(self) -> SinkHealth:
        """How the sink is doing."""
        return SinkHealth(self._sink.name, self._delivered, len(self._pending), self._trouble.failures)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until stopped, then what is left if that is quick."""
        stopping = asyncio.create_task(stop.wait())
        pause = PAUSE_SECONDS
        try:
            while not stop.is_set():
                if await self._deliver():
                    pause = PAUSE_SECONDS
                    news = asyncio.create_task(self._news.wait())
                    await asyncio.wait({stopping, news}, return_when=asyncio.FIRST_COMPLETED)
                    news.cancel()
                else:
                    await asyncio.wait({stopping}, timeout=pause)
                    pause = min(pause * 2, PAUSE_SECONDS_MAX)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._deliver(), DRAIN_SECONDS)
        finally:
            stopping.cancel()
            await self._sink.close()

    async def _deliver(self) -> bool:
        """Deliver everything that waits; False when the sink failed."""
        self._news.clear()
        while self._pending:
            batch = [self._pending[at] for at in range(min(len(self._pending), BATCH_MAX))]
            try:
                await self._sink.deliver(batch)
            except UnavailableError as error:
                self._trouble.met(error)
                return False
            except Exception as error:  # noqa: BLE001 -- a sink's bug must not end the building of the trees
                # Only its type: the text may hold the address, and the address a token.
                self._trouble.met(UnavailableError(f"the checkpoint sink failed: {type(error).__name__}"))
                return False
            self._delivered += len(batch)
            for line in batch:
                # While the sink was busy the oldest may have been pushed out.
                if self._pending and self._pending[0] == line:
                    self._pending.popleft()
        self._trouble.over()
        return True


def checkpoint_line(note: str) -> str:
    """Write a note as one line of JSON."""
    return msgspec.json.encode({"checkpoint": note}).decode()


def open_sink(setting: str) -> CheckpointSink | None:
    """Return the sink a setting names: nothing, a file path, or an https address; raises ConfigError otherwise."""
    if not setting:
        return None
    address = urlsplit(setting)
    if address.scheme == "https" or (address.scheme == "http" and _is_loopback(address.hostname)):
        return HttpsSink(setting)
    if "://" in setting:
        raise ConfigError(
            f"KEYTURN_CHECKPOINT_SINK has scheme {address.scheme[:32]!r}; expected https:// or a file path",
            hint="http:// is accepted for this machine only",
        )
    path = Path(setting)
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"KEYTURN_CHECKPOINT_SINK is {setting!r}; expected a file in a folder that exists",
            hint="create the folder, or name a file in it",
        )
    return FileSink(path)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
