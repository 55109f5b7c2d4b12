"""What lets values out: reads, and what is known of those who read.

    read      value of a version      every access, allowed or denied, is on record before anything leaves
    readers   who has read which version, and who has not moved to the current one
    reuse     equal values at several paths, none of them shown
    news      which paths may hold another version than last time; no values

A person reads with `secret.reveal`, a service or an agent with `secret.read`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import structlog

from keyturn.errors import InputError, KeyturnError, not_found
from keyturn.kernel.clock import rfc3339
from keyturn.vault import consumers, reuse, store
from keyturn.vault.batch import STALL_SECONDS, ReadQueue
from keyturn.vault.batch_state import BatchState
from keyturn.vault.batch_unit import Ask, BatchUnit
from keyturn.vault.consumers import Consumers
from keyturn.vault.gone import VersionGoneError
from keyturn.vault.news import SecretWatch
from keyturn.vault.paths import parse_path
from keyturn.wire.actions import Action
from keyturn.wire.secrets import SecretReader as ReaderInfo
from keyturn.wire.secrets import SecretReaders, SecretValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.batch import ReadMeter
    from keyturn.vault.batch_unit import Opened
    from keyturn.vault.fingerprints import Fingerprints
    from keyturn.vault.reading_ports import ChangeNews, GuardedPaths
    from keyturn.wire.secrets import ReuseReport, SecretNews

__all__ = ["FLUSH_SECONDS", "SecretReader", "VersionGoneError"]

FLUSH_SECONDS: Final = 1.0
"""How long reads are added up before they are written to the rows of consumers."""

_log = structlog.get_logger("keyturn.vault")
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class SecretReader:
    """Reads secrets and tells who has; for one event loop."""

    def __init__(
        self,
        door: Door,
        keyring: Keyring,
        approvals: GuardedPaths,
        fingerprints: Fingerprints,
        news: ChangeNews,
        draining: asyncio.Event,
        *,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Read through the door; a poll for news ends once `draining` is set and `news` has woken it."""
        self._door = door
        self._approvals = approvals
        self._fingerprints = fingerprints
        self._consumers = Consumers()
        self._flushing: asyncio.TimerHandle | None = None
        self._flushes: set[asyncio.Task[None]] = set()
        state = BatchState(door.known_callers(), approvals)
        unit = BatchUnit(state, keyring, approvals, self._consumers)
        self._queue = ReadQueue(
            door, unit, state, self._consumers, stall_seconds=stall_seconds, received=self._flush_later
        )
        self._watch = SecretWatch(door, news, draining)

    @property
    def meter(self) -> ReadMeter:
        """What was counted."""
        return self._queue.meter

    async def read(
        self,
        credentials: Credentials,
        path: str,
        *,
        version: int | None = None,
        sequence: int | None = None,
        resolve: bool = True,
        user_agent: str | None = None,
    ) -> SecretValue:
        """Return what a version holds, the current one unless it is named, once the read is on record.

        Raises NotFoundError when there is no secret that the caller may know of, VersionGoneError for a version that
        was deleted or destroyed, ForbiddenError, ConflictError `broken_reference`, IntegrityError when the value does
        not open, and StorageError when the read cannot be put on record in time.
        """
        opened = await self._open(credentials, path, version, sequence, resolve=resolve, user_agent=user_agent)
        return _value(opened, _decode(opened.fields))

    async def read_encoded(
        self,
        credentials: Credentials,
        path: str,
        *,
        version: int | None = None,
        sequence: int | None = None,
        resolve: bool = True,
        user_agent: str | None = None,
    ) -> bytes:
        """Return the JSON of what `read` returns, without decoding what the version holds."""
        opened = await self._open(credentials, path, version, sequence, resolve=resolve, user_agent=user_agent)
        return msgspec.json.encode(_value(opened, cast("dict[str, Any]", msgspec.Raw(opened.fields))))

    async def readers(self, credentials: Credentials, path: str) -> SecretReaders:
        """Tell who has received which version, and which consumers have not received the current one."""
        parsed = parse_path(path)

        def work(op: Operation) -> SecretReaders:
            found = store.load_secret(op.connection, op.workspace, parsed.text)
            resource = None if found is None else found.resource
            op.authorise(Action.SECRET_LIST, resource, kind="secret", name=parsed.text, absent=parsed.resource)
            if found is None:
                raise not_found("secret", parsed.text)
            listed = consumers.list_readers(op.connection, found.id)
            return SecretReaders(
                path=found.path,
                current_version=found.current,
                items=tuple(map(_reader, listed)),
                laggards=consumers.laggards(listed, found.current),
            )

        await self.flush()
        return await self._door.read(credentials, work)

    async def reuse(self, credentials: Credentials, *, prefix: str = "") -> ReuseReport:
        """Report values that are held at more than one path, among the secrets that the caller may list."""

        def work(op: Operation) -> ReuseReport:
            guards = self._approvals.guards_of(op.connection, op.workspace)
            return reuse.report(op, self._fingerprints, guards, prefix)

        return await self._door.read(credentials, work)

    async def news(
        self, credentials: Credentials, paths: Sequence[str], cursor: str | None, wait_seconds: float
    ) -> SecretNews:
        """Wait until one of the paths may hold another version than at the cursor, or until the wait is over."""
        return await self._watch.wait(credentials, paths, cursor, wait_seconds)

    async def flush(self) -> None:
        """Write what was added up of consumers' reads; what cannot be written is kept for the next time."""
        taken = self._consumers.take()
        if not taken:
            return
        try:
            await self._door.database.write(lambda transaction: consumers.store(transaction.connection, taken))
        except KeyturnError as error:
            self._consumers.give_back(taken)
            _log.warning("reads of secrets could not be added up", reason=str(error))
            self._flush_later()
        except BaseException:
            self._consumers.give_back(taken)
            raise

    async def stop(self) -> None:
        """Finish the batch that is being committed, and write what was added up."""
        await self._queue.close()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        await self.flush()

    async def _open(
        self,
        credentials: Credentials,
        path: str,
        version: int | None,
        sequence: int | None,
        *,
        resolve: bool,
        user_agent: str | None,
    ) -> Opened:
        if version is not None and sequence is not None:
            raise InputError("a version is named by its number or by its sequence, not by both", field="sequence")
        loop = asyncio.get_running_loop()
        ask = Ask(
            credentials=credentials,
            path=parse_path(path),
            which=(version, sequence),
            resolve=resolve,
            user_agent=user_agent,
            done=loop.create_future(),
            asked_at=loop.time(),
        )
        return await self._queue.decide(ask)

    def _flush_later(self) -> None:
        if self._flushing is None and len(self._consumers):
            self._flushing = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = None
        task = asyncio.get_running_loop().create_task(self.flush(), name="secret-consumers")
        self._flushes.add(task)
        task.add_done_callback(self._flushes.discard)


def _value(opened: Opened, fields: dict[str, Any]) -> SecretValue:
    secret, version = opened.secret, opened.version
    return SecretValue(
        id=secret.id,
        path=secret.path,
        environment=secret.environment,
        version=version.number,
        sequence=version.sequence,
        state=version.state,
        fields=fields,
        created_at=rfc3339(version.created_at),
        metadata=secret.metadata,
        expires_at=None if secret.expires_at is None else rfc3339(secret.expires_at),
    )


def _reader(found: consumers.Reader) -> ReaderInfo:
    return ReaderInfo(
        consumer=found.consumer,
        principal=found.principal,
        principal_name=found.principal_name,
        subject=found.subject,
        version=found.number,
        sequence=found.sequence,
        state=found.state,
        first_at=rfc3339(found.first_at),
        last_at=rfc3339(found.last_at),
        reads=found.reads,
        ip_network=found.ip_network,
        user_agent=found.user_agent,
    )
