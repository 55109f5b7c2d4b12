"""`Keyturn` and `AsyncKeyturn`: the operations of a server, for callers that block and for those that await.

    keyturn = Keyturn("https://keys.example.com", token)
    made = keyturn.issue(IssueKey(keyspace="orders", owner="alice", purpose="billing"))
    if keyturn.verify(presented, scopes="orders:read"):
        ...

Requests and answers are the types of `keyturn.wire`.  Every failure is one of `keyturn.errors`.  A call that may
safely be repeated is, up to four times with growing random waits: reads, changes that lead to the same state when
they are done twice, and creates and rotations, which carry an `Idempotency-Key`.  A verification is repeated only
when nothing can have been sent, so that it is never charged twice.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from keyturn.client.model import Verification
from keyturn.client.operations import Asked, Operations
from keyturn.client.secrets import STALE_AFTER_SECONDS, FollowingTask, FollowingThread, HeldSecret
from keyturn.client.transport import ATTEMPTS_MAX, Attempts, Endpoint, unreachable
from keyturn.wire.keys import PAGE_MAX, RetireKey, RevokeKey, RotateKey
from keyturn.wire.verification import VerifyRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    import httpx

    from keyturn.kernel.secret import Secret
    from keyturn.wire.keys import (
        CreateKeyspace,
        ImportedKeys,
        ImportKeys,
        IssuedKey,
        IssuedKeys,
        IssueKey,
        KeyDetail,
        KeyEffect,
        KeyInfo,
        KeyspaceDetail,
        KeyspaceEffect,
        KeyspaceInfo,
        RotatedKey,
        UpdateKey,
        UpdateKeyspace,
    )
    from keyturn.wire.secrets import PutSecret, SecretInfo, SecretNews, SecretValue, SecretWritten

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
POLL_SLACK_SECONDS = 5.0
RETIRE = RetireKey()
REVOKE = RevokeKey()
ROTATE = RotateKey()


class Keyturn:
    """A server, for callers that block; safe to share between threads."""

    def __init__(
        self,
        url: str,
        token: str | Secret,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        allow_insecure: bool = False,
    ) -> None:
        """Hold the address and a management token; nothing is sent yet.  Raises ConfigError; see Endpoint."""
        import httpx  # 230 ms: whoever imports the package does not pay for it

        self._endpoint = Endpoint(url, token, allow_insecure=allow_insecure)
        self._ask = Operations(self._endpoint)
        self._http = httpx.Client(timeout=timeout_seconds, follow_redirects=False)
        self._stopped = threading.Event()
        self._followed = FollowingThread(self)

    def __repr__(self) -> str:
        return f"Keyturn({self._endpoint.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread that follows secrets; a call that waits to try again gives up."""
        self._stopped.set()
        self._followed.close()
        self._http.close()

    # --- verify ---------------------------------------------------------------------------------------------------

    def verify(self, key: str, **call: Any) -> Verification:  # noqa: ANN401 -- those of VerifyRequest
        """Verify a presented key, and charge its limits and quotas.

        What may be told of the call: `scopes`, `ip`, `origin`, `method`, `path`, `user_agent`, `keyspace`, `cost`,
        `limits`, `quotas`, `explain`.  Raises UnavailableError when there is no verdict: refuse then.
        """
        return self.ask(VerifyRequest(key=key, **call))

    def ask(self, request: VerifyRequest) -> Verification:
        """Verify, with a request that is built already."""
        return Verification(self._send(self._ask.verify(request)))

    def release(self, slots: Sequence[str]) -> int:
        """Give back slots of concurrency limits; returns how many were still held."""
        return self._send(self._ask.release(slots)).released if slots else 0

    # --- keys -----------------------------------------------------------------------------------------------------

    def issue(self, request: IssueKey, *, idempotency_key: str | None = None) -> IssuedKey:
        """Issue a key; its secret is in the answer, this once."""
        return self._send(self._ask.issue(request, idempotency_key))

    def issue_many(self, requests: Sequence[IssueKey], *, idempotency_key: str | None = None) -> IssuedKeys:
        """Issue several keys, all of them or none."""
        return self._send(self._ask.issue_many(requests, idempotency_key))

    def import_keys(self, request: ImportKeys, *, idempotency_key: str | None = None) -> ImportedKeys:
        """Import keys that somebody else issued."""
        return self._send(self._ask.import_keys(request, idempotency_key))

    def key(self, key_id: str) -> KeyDetail:
        """Show a key, its secret versions and who uses each."""
        return self._send(self._ask.key(key_id))

    def keys(self, **filters: str | float | None) -> Iterator[KeyInfo]:
        """List keys, oldest first, page by page; filters are those of `GET /api/v1/keys`."""
        cursor: str | None = None
        while True:
            page = self._send(self._ask.keys(filters, cursor, PAGE_MAX))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def update(self, key_id: str, request: UpdateKey, *, revision: int | None = None) -> KeyEffect:
        """Change a key; with `revision` only if it is still that one, else PreconditionError."""
        return self._send(self._ask.update(key_id, request, revision))

    def rotate(self, key_id: str, request: RotateKey = ROTATE, *, idempotency_key: str | None = None) -> RotatedKey:
        """Give a key a new secret; the old one stays valid for the overlap."""
        return self._send(self._ask.rotate(key_id, request, idempotency_key))

    def retire(self, key_id: str, request: RetireKey = RETIRE) -> KeyEffect:
        """End an overlap early."""
        return self._send(self._ask.retire(key_id, request))

    def disable(self, key_id: str) -> KeyEffect:
        """Refuse a key until it is enabled again."""
        return self._send(self._ask.disable(key_id))

    def enable(self, key_id: str) -> KeyEffect:
        """Admit a key again."""
        return self._send(self._ask.enable(key_id))

    def revoke(self, key_id: str, request: RevokeKey = REVOKE) -> KeyEffect:
        """Revoke a key for good; the answer says from when no node admits it."""
        return self._send(self._ask.revoke(key_id, request))

    # --- keyspaces ------------------------------------------------------------------------------------------------

    def create_keyspace(self, request: CreateKeyspace, *, idempotency_key: str | None = None) -> KeyspaceDetail:
        """Create a keyspace."""
        return self._send(self._ask.create_keyspace(request, idempotency_key))

    def keyspace(self, name: str) -> KeyspaceDetail:
        """Show a keyspace."""
        return self._send(self._ask.keyspace(name))

    def keyspaces(self) -> Iterator[KeyspaceInfo]:
        """List keyspaces, oldest first, page by page."""
        cursor: str | None = None
        while True:
            page = self._send(self._ask.keyspaces(cursor, PAGE_MAX))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def update_keyspace(self, name: str, request: UpdateKeyspace, *, revision: int | None = None) -> KeyspaceEffect:
        """Change a keyspace; with `revision` only if it is still that one, else PreconditionError."""
        return self._send(self._ask.update_keyspace(name, request, revision))

    # --- secrets --------------------------------------------------------------------------------------------------

    def secret(
        self, path: str, *, field: str | None = None, stale_after_seconds: float = STALE_AFTER_SECONDS
    ) -> HeldSecret:
        """Read a held secret now, and follow it: the handle is a callable that gives its current value.

        One background thread follows all secrets of this client; `close` ends it.  See HeldSecret.
        """
        return self._followed.hold(path, field, stale_after_seconds)

    def read_secret(self, path: str, *, version: int | None = None) -> SecretValue:
        """Read a version of a held secret, by default the current one, once."""
        return self._send(self._ask.read_secret(path, version))

    def secrets(self, prefix: str = "") -> Iterator[SecretInfo]:
        """List held secrets without what they hold, by path, page by page."""
        cursor: str | None = None
        while True:
            page = self._send(self._ask.secrets(prefix, cursor, PAGE_MAX))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def put_secret(self, path: str, request: PutSecret, *, idempotency_key: str | None = None) -> SecretWritten:
        """Write a new version of a held secret."""
        return self._send(self._ask.put_secret(path, request, idempotency_key))

    def secret_news(self, paths: Sequence[str], cursor: str | None = None, wait_seconds: float = 0.0) -> SecretNews:
        """Wait until one of the secrets changes, at most so long; says which, never what they hold."""
        asked = self._ask.secret_news(paths, cursor, wait_seconds)
        return self._send(asked, seconds=wait_seconds + POLL_SLACK_SECONDS, attempts_max=1)

    def _send(self, asked: Asked[T], *, seconds: float | None = None, attempts_max: int = ATTEMPTS_MAX) -> T:
        import httpx  # see __init__

        call = asked.call
        attempts = Attempts(call, attempts_max=attempts_max)
        timeout = httpx.USE_CLIENT_DEFAULT if seconds is None else httpx.Timeout(seconds)
        while True:
            try:
                answer = self._http.request(
                    call.method, call.url, headers=call.headers, content=call.body, timeout=timeout
                )
            except httpx.HTTPError as error:
                wait = attempts.failed(sent=_was_sent(error))
                if wait is None or self._stopped.wait(wait):
                    raise unreachable(self._endpoint.url, error) from error
                continue
            wait = None if _is_verdict(asked, answer) else attempts.answered(answer.status_code, answer.headers)
            if wait is None or self._stopped.wait(wait):
                return asked.read(answer.status_code, answer.headers, answer.content)


class AsyncKeyturn:
    """A server, for callers that await; for one event loop.  See Keyturn for what each operation does."""

    def __init__(
        self,
        url: str,
        token: str | Secret,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        allow_insecure: bool = False,
    ) -> None:
        """Hold the address and a management token; nothing is sent yet.  Raises ConfigError; see Endpoint."""
        import httpx  # see Keyturn

        self._endpoint = Endpoint(url, token, allow_insecure=allow_insecure)
        self._ask = Operations(self._endpoint)
        self._http = httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False)
        self._followed = FollowingTask(self)

    def __repr__(self) -> str:
        return f"AsyncKeyturn({self._endpoint.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End what follows secrets, and close the connections."""
        await self._followed.close()
        await self._http.aclose()

    # --- verify ---------------------------------------------------------------------------------------------------

    async def verify(self, key: str, **call: Any) -> Verification:  # noqa: ANN401 -- those of VerifyRequest
        """See Keyturn."""
        return await self.ask(VerifyRequest(key=key, **call))

    async def ask(self, request: VerifyRequest) -> Verification:
        """See Keyturn."""
        return Verification(await self._send(self._ask.verify(request)))

    async def release(self, slots: Sequence[str]) -> int:
        """See Keyturn."""
        return (await self._send(self._ask.release(slots))).released if slots else 0

    # --- keys -----------------------------------------------------------------------------------------------------

    async def issue(self, request: IssueKey, *, idempotency_key: str | None = None) -> IssuedKey:
        """See Keyturn."""
        return await self._send(self._ask.issue(request, idempotency_key))

    async def issue_many(self, requests: Sequence[IssueKey], *, idempotency_key: str | None = None) -> IssuedKeys:
        """See Keyturn."""
        return await self._send(self._ask.issue_many(requests, idempotency_key))

    async def import_keys(self, request: ImportKeys, *, idempotency_key: str | None = None) -> ImportedKeys:
        """See Keyturn."""
        return await self._send(self._ask.import_keys(request, idempotency_key))

    async def key(self, key_id: str) -> KeyDetail:
        """See Keyturn."""
        return await self._send(self._ask.key(key_id))

    async def keys(self, **filters: str | float | None) -> AsyncIterator[KeyInfo]:
        """See Keyturn."""
        cursor: str | None = None
        while True:
            page = await self._send(self._ask.keys(filters, cursor, PAGE_MAX))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def update(self, key_id: str, request: UpdateKey, *, revision: int | None = None) -> KeyEffect:
        """See Keyturn."""
        return await self._send(self._ask.update(key_id, request, revision))

    async def rotate(
        self, key_id: str, request: RotateKey = ROTATE, *, idempotency_key: str | None = None
    ) -> RotatedKey:
        """See Keyturn."""
        return await self._send(self._ask.rotate(key_id, request, idempotency_key))

    async def retire(self, key_id: str, request: RetireKey = RETIRE) -> KeyEffect:
        """See Keyturn."""
        return await self._send(self._ask.retire(key_id, request))

    async def disable(self, key_id: str) -> KeyEffect:
        """See Keyturn."""
        return await self._send(self._ask.disable(key_id))

    async def enable(self, key_id: str) -> KeyEffect:
        """See Keyturn."""
        return await self._send(self._ask.enable(key_id))

    async def revoke(self, key_id: str, request: RevokeKey = REVOKE) -> KeyEffect:
        """See Keyturn."""
        return await self._send(self._ask.revoke(key_id, request))

    # --- keyspaces ------------------------------------------------------------------------------------------------

    async def create_keyspace(self, request: CreateKeyspace, *, idempotency_key: str | None = None) -> KeyspaceDetail:
        """See Keyturn."""
        return await self._send(self._ask.create_keyspace(request, idempotency_key))

    async def keyspace(self, name: str) -> KeyspaceDetail:
        """See Keyturn."""
        return await self._send(self._ask.keyspace(name))

    async def keyspaces(self) -> AsyncIterator[KeyspaceInfo]:
        """See Keyturn."""
        cursor: str | None = None
        while True:
            page = await self._send(self._ask.keyspaces(cursor, PAGE_MAX))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def update_keyspace(
        self, name: str, request: UpdateKeyspace, *, revision: int | None = None
    ) -> KeyspaceEffect:
        """See Keyturn."""
        return await self._send(self._ask.update_keyspace(name, request, revision))

    # --- secrets --------------------------------------------------------------------------------------------------

    async def secret(
        self, path: str, *, field: str | None = None, stale_after_seconds: float = STALE_AFTER_SECONDS
    ) -> HeldSecret:
        """See Keyturn; one task follows all secrets of this client."""
        return await self._followed.hold(path, field, stale_after_seconds)

    async def read_secret(self, path: str, *, version: int | None = None) -> SecretValue:
        """See Keyturn."""
        return await self._send(self._ask.read_secret(path, version))

    async def secrets(self, prefix: str = "") -> AsyncIterator[SecretInfo]:
        """See Keyturn."""
        cursor: str | None = None
        while True:
            page = await self._send(self._ask.secrets(prefix, cursor, PAGE_MAX))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def put_secret(self, path: str, request: PutSecret, *, idempotency_key: str | None = None) -> SecretWritten:
        """See Keyturn."""
        return await self._send(self._ask.put_secret(path, request, idempotency_key))

    async def secret_news(
        self, paths: Sequence[str], cursor: str | None = None, wait_seconds: float = 0.0
    ) -> SecretNews:
        """See Keyturn."""
        asked = self._ask.secret_news(paths, cursor, wait_seconds)
        return await self._send(asked, seconds=wait_seconds + POLL_SLACK_SECONDS, attempts_max=1)

    async def _send(self, asked: Asked[T], *, seconds: float | None = None, attempts_max: int = ATTEMPTS_MAX) -> T:
        import httpx  # see Keyturn

        call = asked.call
        attempts = Attempts(call, attempts_max=attempts_max)
        timeout = httpx.USE_CLIENT_DEFAULT if seconds is None else httpx.Timeout(seconds)
        while True:
            try:
                answer = await self._http.request(
                    call.method, call.url, headers=call.headers, content=call.body, timeout=timeout
                )
            except httpx.HTTPError as error:
                wait = attempts.failed(sent=_was_sent(error))
                if wait is None:
                    raise unreachable(self._endpoint.url, error) from error
            else:
                wait = None if _is_verdict(asked, answer) else attempts.answered(answer.status_code, answer.headers)
                if wait is None:
                    return asked.read(answer.status_code, answer.headers, answer.content)
            await asyncio.sleep(wait)


def _was_sent(error: httpx.HTTPError) -> bool:
    import httpx  # see Keyturn

    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _is_verdict(asked: Asked[T], answer: httpx.Response) -> bool:
    """Say whether a 503 is the verdict UNAVAILABLE: it is decided, and the caller refuses at once."""
    return answer.status_code == 503 and asked.call.url.endswith("/verify") and b'"valid"' in answer.content
