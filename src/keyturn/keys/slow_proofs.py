"""Slow proofs: imported bcrypt and argon2 digests, in a bounded pool.

A guess at such a key costs us a tenth of a second of CPU, so guesses are bounded everywhere: threads, proofs that
wait, candidates of one look-up prefix, attempts per candidate, and the work factors that a digest may ask for.  What
is refused for a bound is not known to be wrong, so it is an UnavailableError and never a "no".
"""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from keyturn.errors import UnavailableError
from keyturn.kernel.token_bucket import TokenBuckets
from keyturn.kernel.tokenformat import sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyturn.verify.model import VersionPolicy

THREADS: Final = 2
WAITING_MAX: Final = 16
CANDIDATES_MAX: Final = 4
ATTEMPTS_PER_SECOND: Final = 1.0
ATTEMPTS_BURST: Final = 10.0

BCRYPT_ROUNDS_MAX: Final = 14
BCRYPT_BYTES: Final = 72
ARGON2_KIB_MAX: Final = 262_144
ARGON2_PASSES_MAX: Final = 16
ARGON2_LANES_MAX: Final = 16

_BCRYPT: Final = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


class SlowProofs:
    """Proves secrets against slow digests without blocking the event loop."""

    def __init__(self, boottime: Callable[[], float]) -> None:
        """Start no thread before the first proof."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="keyturn-proof")
        self._attempts = TokenBuckets[str](ATTEMPTS_PER_SECOND, ATTEMPTS_BURST, boottime)
        self._running: dict[tuple[str, bytes], asyncio.Future[bool]] = {}
        self.refused = 0

    async def prove(self, presented: str, candidates: Sequence[VersionPolicy]) -> VersionPolicy | None:
        """Return the candidate whose secret was presented, or None.

        Raises UnavailableError when a bound left the question open.
        """
        for version in candidates[:CANDIDATES_MAX]:
            if await self._matches(presented, version):
                return version
        if len(candidates) > CANDIDATES_MAX:
            raise self._refusal(f"more than {CANDIDATES_MAX} imported keys begin alike")
        return None

    def close(self) -> None:
        """Let go of the threads; a proof that runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _matches(self, presented: str, version: VersionPolicy) -> bool:
        # The same secret for the same digest is proven once for all who wait, whoever of them gives up.
        question = (version.id, sha256(version.digest.hex() + presented))
        running = self._running.get(question)
        if running is None:
            if len(self._running) >= WAITING_MAX:
                raise self._refusal("too many slow digests are being checked")
            if not self._attempts.take(version.id):
                raise self._refusal("this imported key was tried too often")
            running = asyncio.get_running_loop().run_in_executor(
                self._pool, matches, version.standing.kind, version.digest, presented
            )
            self._running[question] = running
            running.add_done_callback(lambda _: self._running.pop(question, None))
        return await asyncio.shield(running)

    def _refusal(self, reason: str) -> UnavailableError:
        self.refused += 1
        return UnavailableError(reason, hint="try again in a second")


def matches(kind: str, stored: bytes, presented: str) -> bool:
    """Tell whether a secret belongs to a bcrypt or argon2 digest; anything that cannot be read is False."""
    if "\0" in presented:
        return False
    secret = presented.encode("utf-8", "surrogatepass")
    if kind == "bcrypt":
        return _matches_bcrypt(stored, secret)
    if kind == "argon2":
        return _matches_argon2(stored, secret)
    return False


def _matches_bcrypt(stored: bytes, secret: bytes) -> bool:
    import bcrypt

    found = _BCRYPT.fullmatch(stored)
    if found is None or int(found[1]) > BCRYPT_ROUNDS_MAX:
        return False
    try:
        # bcrypt reads 72 bytes; whoever made the digest had the rest ignored too.
        return bcrypt.checkpw(secret[:BCRYPT_BYTES], stored)
    except ValueError:
        return False


def _matches_argon2(stored: bytes, secret: bytes) -> bool:
    from argon2 import PasswordHasher, exceptions, extract_parameters

    try:
        text = stored.decode("ascii")
        parameters = extract_parameters(text)
        if (
            parameters.memory_cost > ARGON2_KIB_MAX
            or parameters.time_cost > ARGON2_PASSES_MAX
            or parameters.parallelism > ARGON2_LANES_MAX
        ):
            return False
        return PasswordHasher().verify(text, secret)
    except (exceptions.Argon2Error, exceptions.InvalidHashError, ValueError):
        return False
