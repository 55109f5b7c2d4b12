"""Proven callers: whose bearer token may verify which keys, answered from memory on the hot path.

    token --keyed hash--> ProvenCaller | not there -> the database proves it, once

An entry is what the database said, and is never used beyond that: it goes when a change row of a workspace,
principal, role, grant, keyspace or of its own token arrives, at the expiry of the token and whenever the window of a
time-conditioned grant opens or closes.  Whoever uses one checks `fresh` under its `stale_after_seconds` first, so a
node that hears no news stops trusting it.  The token itself is not kept; the hash is keyed at random per process.

A login token is never remembered: its rights end with a row that no follower hears of.

A token that cannot be one is refused without asking the database: by shape and check, and by its digest where the
replica knows its version.  Unknown tokens are proven under a token bucket, as unknown keys are.
"""

from __future__ import annotations

import hashlib
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn

from keyturn.access import rules
from keyturn.access.authorities import is_login_token
from keyturn.access.caller import Resource
from keyturn.errors import StaleError, UnauthenticatedError
from keyturn.kernel.ids import is_id
from keyturn.kernel.match import matches
from keyturn.kernel.secret import constant_time_equal, random_base62, random_bytes
from keyturn.kernel.token_bucket import TokenBucket
from keyturn.kernel.tokenformat import digest, sha256, version_id_of
from keyturn.keys.read_slots import ReadSlots
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.access.caller import Caller, Credentials
    from keyturn.access.door import Door, Operation, UnauthenticatedSink
    from keyturn.kernel.clock import Clock
    from keyturn.keys.ports import CaughtUp, Records
    from keyturn.verify.model import VersionPolicy
    from keyturn.verify.replica import Replica

ENTRIES_MAX: Final = 4096
KEYS_MAX: Final = 4096
"""How many single keys are remembered for a caller whose grants name keys one by one."""

STALE_AFTER_SECONDS: Final = 60.0
"""A caller's rights are used from memory for no longer than this after the last proof of freshness."""

CAUGHT_UP_SECONDS: Final = 2.0
PROOFS_PER_SECOND: Final = 50.0
PROOFS_BURST: Final = 100.0

# A name that only a wildcard can match: nobody can guess it, and nobody can have been granted it.
_PROBE: Final = f"key_{random_base62(22)}"


class ProvenCaller:
    """A caller as the database knew it, and what it may verify."""

    __slots__ = ("_caller", "_keys", "_whole", "ip_bound", "stale_after_seconds", "token_key", "until", "workspace")

    def __init__(self, caller: Caller, *, token_key: str, until: float, stale_after_seconds: float) -> None:
        """Hold a caller until `until`, epoch seconds; `token_key` is the key id of its token."""
        self.workspace = caller.workspace
        self.token_key = token_key
        self.until = until
        self.stale_after_seconds = stale_after_seconds
        self.ip_bound = any(grant.conditions.cidrs for grant in caller.grants)
        self._caller = caller
        self._whole: dict[tuple[str, str], bool] = {}
        self._keys: dict[str, bool] = {}

    def may_verify(self, version: VersionPolicy, now: float) -> bool:
        """Tell whether this caller may verify the key of a version; another workspace's never."""
        keyspace = version.keyspace
        if keyspace.workspace != self.workspace:
            return False
        environment = version.standing.environment
        whole = self._whole.get((keyspace.id, environment))
        if whole is None:
            whole = self._whole[keyspace.id, environment] = self._may(keyspace.name, _PROBE, environment, now)
        if whole:
            return True
        allowed = self._keys.get(version.key_id)
        if allowed is None:
            if len(self._keys) >= KEYS_MAX:
                self._keys.clear()
            allowed = self._keys[version.key_id] = self._may(keyspace.name, version.key_id, environment, now)
        return allowed

    def may_verify_any(self) -> bool:
        """Tell whether this caller has the right to verify at all, whatever keys it is about."""
        caller, action = self._caller, Action.KEY_VERIFY
        return (not caller.token_scopes or any(matches(scope, action) for scope in caller.token_scopes)) and any(
            matches(pattern, action) for grant in caller.grants for pattern in grant.actions
        )

    def _may(self, keyspace: str, key_id: str, environment: str, now: float) -> bool:
        return rules.may(self._caller, Action.KEY_VERIFY, Resource(f"key/{keyspace}/{key_id}", environment), now)


class ProvenCallers:
    """A bounded table of proven callers; for one event loop."""

    def __init__(self, clock: Clock) -> None:
        """Begin empty."""
        self._clock = clock
        self._hash_key = random_bytes(32)
        self._entries: dict[bytes, ProvenCaller] = {}
        self._ip_bound: set[bytes] = set()
        self.generation = 0
        """Moves whenever something may have been dropped."""

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, token: bytes, ip: str | None, now: float) -> ProvenCaller | None:
        """Return what is remembered of a token's bearer; the caller of this checks freshness."""
        mark = hashlib.blake2b(token, digest_size=16, key=self._hash_key).digest()
        if self._ip_bound and mark in self._ip_bound:
            mark = _with_ip(mark, ip)
        entry = self._entries.get(mark)
        if entry is None:
            return None
        if now < entry.until:
            return entry
        del self._entries[mark]
        return None

    def keep(self, token: bytes, ip: str | None, entry: ProvenCaller, generation: int) -> None:
        """Remember an entry that was read at `generation`, unless something was dropped since."""
        if generation != self.generation:
            return
        mark = hashlib.blake2b(token, digest_size=16, key=self._hash_key).digest()
        while len(self._entries) >= ENTRIES_MAX:
            del self._entries[next(iter(self._entries))]
        if entry.ip_bound:
            if len(self._ip_bound) >= ENTRIES_MAX:
                self.drop_all()
            self._ip_bound.add(mark)
            mark = _with_ip(mark, ip)
        self._entries[mark] = entry

    def drop_all(self) -> None:
        """Forget everybody."""
        self.generation += 1
        self._entries.clear()
        self._ip_bound.clear()

    def drop_tokens(self, key_ids: Iterable[str]) -> None:
        """Forget whoever was proven by one of these keys; those that are no tokens concern nobody here."""
        gone = frozenset(key_id for key_id in key_ids if is_id("tok", key_id))
        if not gone:
            return
        self.generation += 1
        for mark in [mark for mark, entry in self._entries.items() if entry.token_key in gone]:
            del self._entries[mark]


def _with_ip(mark: bytes, ip: str | None) -> bytes:
    return mark + (ip or "").encode("utf-8", "surrogatepass")


class CallerProofs:
    """Proves bearer tokens against the database and remembers them."""

    def __init__(
        self,
        door: Door,
        source: Records,
        replica: Replica,
        callers: ProvenCallers,
        follower: CaughtUp,
        unauthenticated: UnauthenticatedSink,
        clock: Clock,
    ) -> None:
        """Prove through `door`; what is refused without it is counted by `unauthenticated`."""
        self._door = door
        self._source = source
        self._replica = replica
        self._callers = callers
        self._follower = follower
        self._unauthenticated = unauthenticated
        self._clock = clock
        self.slots = ReadSlots()
        """What verification may ask of the database at once; shared with look-ups."""
        self._bucket = TokenBucket(PROOFS_PER_SECOND, PROOFS_BURST, clock.boottime)

    async def prove(self, credentials: Credentials) -> ProvenCaller:
        """Return the caller, for this request at least.

        Raises UnauthenticatedError, StorageError, or StaleError when unknown tokens come faster than they may be
        looked up and this node cannot tell whether it knows every token.
        """
        self.require_plausible(credentials)
        await self._require_turn(credentials)
        generation = self._callers.generation
        async with self.slots.slot():
            entry = await self._door.read(credentials, lambda operation: self.read(operation, credentials))
        # A login token has no change row of its own to be dropped by: it is proven in the database each time.
        if not is_login_token(credentials.token.reveal()):
            self._callers.keep(credentials.token.reveal_bytes(), credentials.ip, entry, generation)
        return entry

    def read(self, operation: Operation, credentials: Credentials) -> ProvenCaller:
        """Build the entry of an authenticated caller inside its transaction."""
        caller = operation.caller
        until = [inf, *_windows(caller)]
        stale_after, token_key = STALE_AFTER_SECONDS, ""
        version_id = version_id_of(credentials.token.reveal())
        pair = None if version_id is None else self._source.of_version(operation.connection, version_id)
        if pair is not None:
            key, keyspace = pair
            token_key = key.id
            stale_after = min(stale_after, keyspace.stale_after_seconds)
            ends = [version.valid_until for version in key.versions if version.id == version_id]
            until.extend(end for end in (key.expires_at, *ends) if end is not None)
        return ProvenCaller(
            caller,
            token_key=token_key,
            until=min(end for end in until if end > operation.now),
            stale_after_seconds=stale_after,
        )

    def require_plausible(self, credentials: Credentials) -> None:
        """Raise UnauthenticatedError for what memory alone knows to be no token, and count it."""
        token = credentials.token.reveal()
        version_id = version_id_of(token)
        if version_id is None:
            self._refuse(credentials)
        known = self._replica.version(version_id)
        pepper = None if known is None else known.keyspace.peppers.get(known.standing.pepper)
        # However old the replica, a digest in it was made of the version's one secret.
        if known is None or pepper is None:
            return
        if not constant_time_equal(digest(pepper, sha256(token)), known.digest):
            self._refuse(credentials)

    async def _require_turn(self, credentials: Credentials) -> None:
        version_id = version_id_of(credentials.token.reveal()) or ""
        if is_login_token(credentials.token.reveal()):
            if self.slots.crowded:
                raise StaleError("too many login tokens are being proven", hint="try again in a second")
            return
        if self._replica.version(version_id) is not None or (not self.slots.crowded and self._bucket.take()):
            return
        if not await self._follower.caught_up(CAUGHT_UP_SECONDS):
            raise StaleError("too many unknown tokens are being tried", hint="try again in a second")
        if self._replica.version(version_id) is None:
            self._refuse(credentials)

    def _refuse(self, credentials: Credentials) -> NoReturn:
        self._unauthenticated.count(credentials.ip, self._clock.now())
        raise UnauthenticatedError(
            "the bearer token is not valid", hint="use a management token; `keyturn login` stores one"
        )


def _windows(caller: Caller) -> list[float]:
    """Return when a time-conditioned grant begins or ends to apply."""
    conditions = [grant.conditions for grant in caller.grants]
    moments = [*(c.not_before for c in conditions), *(c.not_after for c in conditions)]
    return [moment for moment in moments if moment is not None]
