"""How a replica builds version policies so that what is equal is held once, and how it finds imported keys."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from keyturn.kernel.match import compile_patterns
from keyturn.verify.model import Told, VersionPolicy
from keyturn.verify.restrictions import Checker, compile_restrictions
from keyturn.verify.rules import FAST_KIND, state_code
from keyturn.verify.standing import KeyspacePolicy, Standing
from keyturn.verify.terms import Grants, Own, OwnerSays

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from keyturn.wire.policy import KeyRecord, LimitRule, OwnerRecord, QuotaRule, Restrictions

POOL_MAX: Final = 65_536
"""How many different values of a kind are remembered in order to share them."""

_NO_IDS: Final[dict[str, str]] = {}
_pack: Final = msgspec.msgpack.Encoder().encode

# Keyspace, scopes, restrictions, plan, limits, quotas and restrictions in shadow.
_Said = tuple[
    str,
    "tuple[str, ...]",
    "Restrictions | None",
    "str | None",
    "tuple[LimitRule, ...]",
    "tuple[QuotaRule, ...]",
    "Restrictions | None",
]

# Keyspace, what the key says, environment, states of key and version, number, pepper, kind, foreign, digest's length.
_State = tuple[KeyspacePolicy, Own, str, str, str, int, int, str, bool, int]

# Plan, limits and quotas.
_OwnerSaid = tuple["str | None", "tuple[LimitRule, ...]", "tuple[QuotaRule, ...]"]

Given = TypeVar("Given", bound="Hashable")
Made = TypeVar("Made")


class _Pool(Generic[Given, Made]):
    """Makes equal things once, up to a bound; past it sharing starts anew, and nothing else changes."""

    __slots__ = ("_held", "_make")

    def __init__(self, make: Callable[[Given], Made]) -> None:
        self._make = make
        self._held: dict[Given, Made] = {}

    def get(self, given: Given) -> Made:
        held = self._held
        found = held.get(given)
        if found is None:
            if len(held) >= POOL_MAX:
                held.clear()
            found = held[given] = self._make(given)
        return found


def _grants(scopes: tuple[str, ...]) -> Grants:
    return Grants(scopes, compile_patterns(scopes))


def _standing(given: _State) -> Standing:
    _, _, _, key_state, version_state, *_ = given
    return Standing(*given, state_code(version_state, key_state))


def _owner(said: _OwnerSaid) -> OwnerSays:
    return OwnerSays(*said)


class Shared:
    """Everything that versions have in common, and the making of versions from records."""

    __slots__ = ("_checkers", "_grants", "_owners", "_owns", "_standings")

    def __init__(self) -> None:
        """Begin with nothing to share."""
        self._grants: _Pool[tuple[str, ...], Grants] = _Pool(_grants)
        self._checkers: _Pool[Restrictions, Checker | None] = _Pool(compile_restrictions)
        self._owners: _Pool[_OwnerSaid, OwnerSays] = _Pool(_owner)
        self._owns: _Pool[_Said, Own] = _Pool(self._own)
        self._standings: _Pool[_State, Standing] = _Pool(_standing)

    def checker(self, restrictions: Restrictions | None) -> Checker | None:
        """Return the compiled restrictions, None when nothing is restricted."""
        return None if restrictions is None else self._checkers.get(restrictions)

    def owner(self, record: OwnerRecord) -> OwnerSays:
        """Return what the record of an owner says."""
        return self._owners.get((record.plan, record.limits, record.quotas))

    def versions(
        self, record: KeyRecord, keyspace: KeyspacePolicy, held: tuple[VersionPolicy, ...]
    ) -> tuple[VersionPolicy, ...]:
        """Return the version policies of a record; ids are taken from those held where they are equal."""
        ids = {version.id: version.id for version in held} if held else _NO_IDS
        key_id = held[0].key_id if held else record.id
        own = self._owns.get(
            (
                keyspace.id,
                record.scopes,
                record.restrictions,
                record.plan,
                record.limits,
                record.quotas,
                record.shadow_restrictions,
            )
        )
        told = _pack(Told(record.owner, record.name, record.metadata))
        made = [
            VersionPolicy(
                ids.get(version.id, version.id),
                key_id,
                self._standings.get(
                    (
                        keyspace,
                        own,
                        record.environment,
                        record.state,
                        version.state,
                        version.number,
                        version.pepper,
                        version.digest_kind,
                        version.foreign,
                        len(version.digest),
                    )
                ),
                version.digest + told,
                record.not_before,
                record.expires_at,
                version.valid_until,
            )
            for version in record.versions
        ]
        return tuple(made)

    def _own(self, said: _Said) -> Own:
        _, scopes, restrictions, plan, limits, quotas, shadow = said
        return Own(self._grants.get(scopes), self.checker(restrictions), plan, limits, quotas, self.checker(shadow))


class Imports:
    """The imported keys of one keyspace: by computed digest, or by declared look-up prefix."""

    __slots__ = ("_lengths", "_lookups", "_prefixes", "digests")

    def __init__(self) -> None:
        """Begin empty."""
        self.digests: dict[bytes, VersionPolicy] = {}
        self._lookups: dict[str, str] = {}
        self._prefixes: dict[str, tuple[VersionPolicy, ...]] = {}
        self._lengths: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.digests) + len(self._lookups)

    def add(self, version: VersionPolicy, lookup: str | None) -> None:
        """Hold an imported version; a slow one without a prefix cannot be found and is not held."""
        if version.standing.kind == FAST_KIND:
            self.digests[version.digest] = version
        elif lookup:
            self._lookups[version.id] = lookup
            self._prefixes[lookup] = (*self._prefixes.get(lookup, ()), version)
            self._lengths[len(lookup)] += 1

    def drop(self, version: VersionPolicy) -> None:
        """Let go of a version; one that is not held changes nothing."""
        if self.digests.get(version.digest) is version:
            del self.digests[version.digest]
        lookup = self._lookups.pop(version.id, None)
        if lookup is None:
            return
        left = tuple(other for other in self._prefixes[lookup] if other.id != version.id)
        if left:
            self._prefixes[lookup] = left
        else:
            del self._prefixes[lookup]
        self._lengths[len(lookup)] -= 1
        if not self._lengths[len(lookup)]:
            del self._lengths[len(lookup)]

    def candidates(self, presented: str) -> Iterator[VersionPolicy]:
        """Return the slow versions whose declared prefix begins the presented key, longest prefix first."""
        for length in sorted(self._lengths, reverse=True):
            yield from self._prefixes.get(presented[:length], ())
