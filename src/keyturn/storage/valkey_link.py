"""One connection to Valkey or Redis: commands in one round trip, within a time, with errors that hold no address.

The `redis` package speaks the protocol; its pool, its retries and its own timeouts are not used.  A reply that was
received in time counts however late this process came to read it, so a pause of the process is no loss of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from keyturn.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.kernel.secret import Secret

_SCHEMES: Final = {
    "redis": "redis",
    "valkey": "redis",
    "rediss": "rediss",
    "valkeys": "rediss",
    "unix": "unix",
}
ANSWER_SECONDS: Final = 0.1
"""How long a verification waits for the store, unless the address says otherwise."""
_ANSWER_SECONDS_MAX: Final = 10.0
_EXPECTED: Final = "redis://user:password@host:port/0, rediss://… for TLS, or unix://:password@/path/of/socket"
# What the timer waits for after it fired: a reply that is already here is read in these turns of the event loop.
_GRACE_TURNS: Final = 3


class LinkError(Exception):
    """The store did not answer as it should; the text is fit for a log."""


class Script:
    """A script that the store may have cached."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        """Know it by its SHA-1, as the protocol does."""
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes]) -> Command:
        """Return the command that runs it."""
        return Command(self, (len(keys), *keys, *arguments))


@dataclass(frozen=True, slots=True)
class Command:
    """One run of a script."""

    script: Script
    words: tuple[object, ...]


class Address:
    """Where the store is, and how long to wait for it; holds a password and prints nothing of it."""

    __slots__ = ("_kind", "_options", "answer_seconds")

    def __init__(self, kind: type[Any], options: dict[str, Any], answer_seconds: float) -> None:
        """Not for callers: use `parse_address`."""
        self.answer_seconds = answer_seconds
        self._kind = kind
        self._options = options

    def __repr__(self) -> str:
        """Say nothing of it."""
        return "Address()"

    def connection(self, seconds: float) -> Any:  # noqa: ANN401 -- the package's own classes have no common type
        """Make a connection that is not open yet."""
        return self._kind(
            **self._options,
            socket_timeout=None,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            client_name="keyturn",
        )


def parse_address(address: Secret) -> Address:
    """Read an address; raises ConfigError, which does not show it."""
    text = address.reveal()
    scheme, _, rest = text.partition("://")
    try:
        parts = urlsplit(text)
        port_usable = parts.port != 0
        options: dict[str, Any] = dict(parse_url(f"{_SCHEMES[scheme]}://{rest}"))
        kind = options.pop("connection_class", Connection)
        seconds = float(options.pop("socket_timeout", ANSWER_SECONDS))
        found = Address(kind, {**options, "protocol": 2}, seconds)
        usable = bool(port_usable and (options.get("path") or options.get("host")) and not parts.fragment)
        usable = usable and 0.0 < seconds <= _ANSWER_SECONDS_MAX
        found.connection(1.0)
    except Exception:  # noqa: BLE001 -- whatever it is, its text may hold the password
        usable = False
    if not usable:
        message = "KEYTURN_VALKEY_URL is not the address of a Valkey or Redis"
        raise ConfigError(message, hint=f"write {_EXPECTED}; percent-encode what is special in the password")
    return found


class Link:
    """An open connection; it is closed by the first failure."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 -- see Address.connection
        """Not for callers: use `open`."""
        self._connection = connection
        self._lock = asyncio.Lock()
        self._in_step = True
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: Address, scripts: Sequence[Script], seconds: float) -> Self:
        """Connect, prove who we are and load the scripts; raises LinkError."""
        connection = address.connection(seconds)
        link = cls(connection)
        try:
            async with asyncio.timeout(seconds):
                await connection.connect()
                for script in scripts:
                    await connection.send_command("SCRIPT", "LOAD", script.text)
                    await connection.read_response()
        except (RedisError, OSError, ValueError, TimeoutError) as error:
            link.close()
            raise LinkError(_reason(error)) from None
        except BaseException:
            link.close()
            raise
        return link

    def close(self) -> None:
        """Close it; nothing is waited for."""
        if self._closing is None:
            with contextlib.suppress(RuntimeError):  # no event loop any more
                self._closing = asyncio.create_task(_disconnected(self._connection), name="valkey-close")

    async def text(self, *words: str, seconds: float) -> str:
        """Send one command that answers with text; raises LinkError."""
        try:
            async with asyncio.timeout(seconds), self._lock:
                await self._connection.send_command(*words)
                reply = await self._connection.read_response(disable_decoding=True)
        except (RedisError, OSError, ValueError, TimeoutError) as error:
            raise LinkError(_reason(error)) from None
        return reply.decode(errors="replace") if isinstance(reply, bytes) else str(reply)

    async def exchange(self, commands: Sequence[Command], seconds: float) -> list[object]:
        """Run scripts in one round trip, and in a second one those that the store has forgotten.

        Raises LinkError when not all of them are answered within `seconds`, or one is answered by an error.
        """
        loop = asyncio.get_running_loop()
        overdue = _Overdue(loop, asyncio.current_task(), seconds)
        try:
            async with self._lock:
                replies = await self._send(commands, "EVALSHA")
                forgotten = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if forgotten:
                    again = await self._send([commands[number] for number in forgotten], "EVAL")
                    for number, reply in zip(forgotten, again, strict=True):
                        replies[number] = reply
        except asyncio.CancelledError:
            if overdue.fired and overdue.task is not None and overdue.task.uncancel() == 0:
                raise LinkError(f"no answer within {seconds:g} s") from None
            raise
        except (RedisError, OSError, ValueError) as error:
            raise LinkError(_reason(error)) from None
        finally:
            overdue.cancel()
        for reply in replies:
            if isinstance(reply, Exception):
                raise LinkError(_reason(reply))
        return replies

    async def _send(self, commands: Sequence[Command], word: str) -> list[object]:
        connection = self._connection
        if not self._in_step:
            raise LinkError("the connection was given up")
        self._in_step = False
        packed = [
            (word, command.script.digest if word == "EVALSHA" else command.script.text, *command.words)
            for command in commands
        ]
        await connection.send_packed_command(connection.pack_commands(packed), check_health=False)
        replies: list[object] = []
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
        self._in_step = True
        return replies


class _Overdue:
    """Cancels a task when its time is over and nothing that would end it is waiting to be read."""

    __slots__ = ("_handle", "_loop", "fired", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any] | None, seconds: float) -> None:
        self._loop = loop
        self.task = task
        self.fired = False
        self._handle: asyncio.Handle = loop.call_later(seconds, self._wait, _GRACE_TURNS)

    def cancel(self) -> None:
        """Forget it."""
        self._handle.cancel()

    def _wait(self, turns: int) -> None:
        if turns:
            self._handle = self._loop.call_soon(self._wait, turns - 1)
        elif self.task is not None:
            self.fired = True
            self.task.cancel()


async def _disconnected(connection: Any) -> None:  # noqa: ANN401 -- see Address.connection
    with contextlib.suppress(Exception):
        await connection.disconnect(nowait=True)


def _reason(error: BaseException) -> str:
    """Name an error; only the first word of what the store says, which is its code."""
    name = type(error).__name__
    if isinstance(error, ResponseError) and error.args:
        return f"{name}: {str(error.args[0]).split(' ', 1)[0][:32]}"
    return name
