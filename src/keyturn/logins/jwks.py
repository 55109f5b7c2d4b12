"""The key sets of issuers, kept in memory: read again in time, and kept for a while when they cannot be read.

    fresh                       for 10 minutes after they were read, for 5 seconds from a file
    a key id that is not there  read again at once, though not within 10 seconds of the last time
    cannot be read              the keys read last count for another hour, then nobody is let in
    after a failure             not tried again for 5 seconds

One request at a time asks for the keys of a source; the others wait for its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from keyturn.logins.jwk import KEY_SET_BYTES_MAX, IssuerKey, candidates, keys_of, read_key_set
from keyturn.logins.ports import FetchError
from keyturn.logins.refusal import RefusedLoginError, keys_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keyturn.logins.ports import Fetcher
    from keyturn.wire.logins import JwtOptions

FRESH_SECONDS: Final = 600.0
STALE_SECONDS: Final = 3600.0
REFETCH_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 5.0
FILE_SECONDS: Final = 5.0
SOURCES_MAX: Final = 256
FOLDER: Final = "jwks"

_log = structlog.get_logger("keyturn.logins")


@dataclass(slots=True)
class _Source:
    """What is known of one source of keys."""

    fresh_seconds: float = FRESH_SECONDS
    refetch_seconds: float = REFETCH_SECONDS
    keys: tuple[IssuerKey, ...] = ()
    read_at: float | None = None
    failed_at: float | None = None
    fault: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeySets:
    """Finds the keys that a token's signature may be checked with; for one event loop."""

    def __init__(self, fetcher: Fetcher, folder: Path, boottime: Callable[[], float]) -> None:
        """Ask issuers through `fetcher`, and read files below `folder`."""
        self._fetcher = fetcher
        self._folder = folder / FOLDER
        self._boottime = boottime
        self._sources: dict[bytes, _Source] = {}

    async def find(self, options: JwtOptions, kid: str | None, algorithm: str) -> tuple[IssuerKey, ...]:
        """Return the issuer's keys for a key id and an algorithm.

        Raises RefusedLoginError when the issuer has none, and UnavailableError (code `jwks_unavailable`) when that
        cannot be known.
        """
        if options.jwks is not None:
            return _chosen(keys_of(options.jwks), kid, algorithm)
        source = self._source(options)
        now = self._boottime()
        if _is_fresh(source, now) and (found := candidates(source.keys, kid, algorithm)):
            return found
        async with source.lock:
            return await self._read(source, options, kid, algorithm)

    async def _read(
        self, source: _Source, options: JwtOptions, kid: str | None, algorithm: str
    ) -> tuple[IssuerKey, ...]:
        now = self._boottime()
        found = candidates(source.keys, kid, algorithm)
        if _is_fresh(source, now) and found:
            return found  # somebody else has read them meanwhile
        if _may_read(source, now):
            await self._refresh(source, options, now)
            found = candidates(source.keys, kid, algorithm)
        usable = source.read_at is not None and now < source.read_at + source.fresh_seconds + STALE_SECONDS
        if found and usable:
            return found
        if source.fault or not usable:
            raise keys_unavailable(source.fault or "the keys are too old")
        raise RefusedLoginError("no_key")

    async def _refresh(self, source: _Source, options: JwtOptions, now: float) -> None:
        try:
            source.keys = await self._content(options)
        except (FetchError, ValueError, OSError) as error:
            # From when it failed: an issuer that lets every request wait is not asked again by each login in turn.
            source.failed_at, source.fault = self._boottime(), f"{type(error).__name__}: {error}"[:200]
            _log.warning("the keys of an issuer cannot be read", issuer=options.issuer, reason=source.fault)
        else:
            source.read_at, source.failed_at, source.fault = now, None, ""

    async def _content(self, options: JwtOptions) -> tuple[IssuerKey, ...]:
        if options.jwks_file is not None:
            path = self._folder / options.jwks_file
            return read_key_set(await asyncio.to_thread(_read_file, path))
        url = options.jwks_url
        if url is None:
            url = await self._discovered(str(options.discovery_url), options)
        return read_key_set(await self._get(url, options))

    async def _discovered(self, url: str, options: JwtOptions) -> str:
        try:
            document = msgspec.json.decode(await self._get(url, options))
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("the discovery document is no JSON") from None
        held = document if isinstance(document, dict) else {}
        if held.get("issuer") != options.issuer:
            raise ValueError("the discovery document is of another issuer")
        return str(held.get("jwks_uri"))

    async def _get(self, url: str, options: JwtOptions) -> bytes:
        answer = await self._fetcher.get(url, ca_pem=options.ca_pem, bytes_max=KEY_SET_BYTES_MAX)
        if answer.status != 200:
            raise FetchError(f"answered {answer.status}")
        return answer.body

    def _source(self, options: JwtOptions) -> _Source:
        place = (options.issuer, options.jwks_url, options.discovery_url, options.jwks_file, options.ca_pem)
        mark = hashlib.sha256(msgspec.json.encode(place)).digest()
        found = self._sources.get(mark)
        if found is None:
            while len(self._sources) >= SOURCES_MAX:
                del self._sources[next(iter(self._sources))]
            found = self._sources[mark] = _Source() if options.jwks_file is None else _Source(FILE_SECONDS, 0.0)
        return found


def _is_fresh(source: _Source, now: float) -> bool:
    return source.read_at is not None and now < source.read_at + source.fresh_seconds


def _may_read(source: _Source, now: float) -> bool:
    """Tell whether it is time to ask again: not right after a failure, and not for every unknown key id."""
    if source.failed_at is not None and now < source.failed_at + RETRY_SECONDS:
        return False
    return source.read_at is None or now >= source.read_at + source.refetch_seconds


def _chosen(keys: tuple[IssuerKey, ...], kid: str | None, algorithm: str) -> tuple[IssuerKey, ...]:
    found = candidates(keys, kid, algorithm)
    if not found:
        raise RefusedLoginError("no_key")
    return found


def _read_file(path: Path) -> bytes:
    if path.stat().st_size > KEY_SET_BYTES_MAX:
        raise ValueError("the file is too large")
    return path.read_bytes()
