"""The rules of keys: two state machines, rotation, and what may be written.  Pure: values and `now` in, values out.

    key        active    -> disabled, revoked
               disabled  -> active, revoked
               revoked                             final; its reason may still become key_compromise

    version    pending     -> current, revoked, compromised
               current     -> previous, revoked, compromised
               previous    -> suspended, revoked, compromised
               suspended   -> previous, revoked, compromised
               revoked     -> compromised, destroyed
               compromised -> destroyed
               destroyed                           final

A key that is not revoked has exactly one current version; a revoked one has none that is valid.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keyturn.access.moments import epoch_of
from keyturn.errors import ConflictError, InputError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.match import check_pattern
from keyturn.kernel.tokenformat import TAG_PATTERN
from keyturn.keys.model import (
    ACTIVE,
    COMPROMISED,
    CURRENT,
    DESTROYED,
    DISABLED,
    LIVE_VERSION_STATES,
    PENDING,
    PREVIOUS,
    REVOKED,
    SUSPENDED,
    VersionChange,
)
from keyturn.verify.restrictions import check_restrictions
from keyturn.wire.keys import RevokeReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from keyturn.audit.model import Detail
    from keyturn.keys.model import Key, Keyspace, Version
    from keyturn.wire.keys import KeyFilter
    from keyturn.wire.policy import Restrictions
    from keyturn.wire.usage import VersionUse

KEY_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    ACTIVE: frozenset({DISABLED, REVOKED}),
    DISABLED: frozenset({ACTIVE, REVOKED}),
    REVOKED: frozenset(),
}
_ENDS: Final = frozenset({REVOKED, COMPROMISED})
VERSION_TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    PENDING: _ENDS | {CURRENT},
    CURRENT: _ENDS | {PREVIOUS},
    PREVIOUS: _ENDS | {SUSPENDED},
    SUSPENDED: _ENDS | {PREVIOUS},
    REVOKED: frozenset({COMPROMISED, DESTROYED}),
    COMPROMISED: frozenset({DESTROYED}),
    DESTROYED: frozenset(),
}
LIVE_VERSIONS_MAX: Final = 8
"""How many secrets of one key may be valid at once."""

ENVIRONMENT_TAGS: Final[Mapping[str, str]] = {"production": "live", "staging": "test", "development": "dev"}
UNCERTAIN_MARGIN_SECONDS: Final = 2.0
FILTER_LENGTH_MAX: Final = 512
_is_tag: Final = re.compile(TAG_PATTERN).fullmatch


# --- states ------------------------------------------------------------------------------------------------------


def require_key_transition(key: Key, to: str) -> None:
    """Raise ConflictError unless the key may go to the state."""
    if to not in KEY_TRANSITIONS.get(key.state, frozenset()):
        raise ConflictError(
            f"key {key.id} is {key.state} and cannot become {to}",
            code="key_" + key.state,
            hint="a revoked key stays revoked; issue a new one" if key.state == REVOKED else None,
        )


def require_version_transition(version: Version, to: str) -> None:
    """Raise ConflictError unless the version may go to the state."""
    if to not in VERSION_TRANSITIONS.get(version.state, frozenset()):
        raise ConflictError(f"version {version.id} is {version.state} and cannot become {to}", code="version_state")


def require_usable(keyspace: Keyspace) -> None:
    """Raise ConflictError unless keys of the keyspace may be made or given new secrets."""
    if keyspace.state != ACTIVE:
        raise ConflictError(
            f"keyspace {keyspace.name} is {keyspace.state}", code="keyspace_disabled", hint="enable the keyspace first"
        )


def rotate(key: Key, versions: Iterable[Version], overlap_seconds: int, now: float) -> tuple[VersionChange, ...]:
    """Return what becomes of the versions when the key gets a new current one.

    With an overlap the current one becomes previous and valid until it ends; earlier promises stand.  Without one
    every secret but the new one ends now.  Raises ConflictError for a revoked key, and when too many secrets would
    be valid at once.
    """
    if key.state == REVOKED:
        raise ConflictError(
            f"key {key.id} is revoked and cannot be rotated", code="key_revoked", hint="issue a new key"
        )
    if overlap_seconds == 0:
        ending = (v for v in versions if v.state in LIVE_VERSION_STATES)
        return tuple(_end(version, REVOKED, now) for version in ending)
    valid = [v for v in versions if v.state in LIVE_VERSION_STATES and not (v.valid_until or now + 1) <= now]
    if len(valid) >= LIVE_VERSIONS_MAX:
        raise ConflictError(
            f"key {key.id} has {len(valid)} valid secrets, and {LIVE_VERSIONS_MAX} is the most",
            code="too_many_versions",
            hint="retire the old ones, or rotate with overlap_seconds 0",
        )
    changes = []
    for version in versions:
        if version.state == CURRENT:
            require_version_transition(version, PREVIOUS)
            until = now + overlap_seconds
            if version.valid_until is not None:  # an end was set for it: no overlap prolongs it
                until = min(until, version.valid_until)
            changes.append(VersionChange(version.id, PREVIOUS, until, None))
    return tuple(changes)


def end_at(version: Version, at: float) -> VersionChange | None:
    """Return what becomes of a version that is to end at that time; None when it ends by then anyway.

    It stays what it is until then: the current version of a key that is not rotated by then simply ends.
    """
    if version.state not in LIVE_VERSION_STATES or (version.valid_until is not None and version.valid_until <= at):
        return None
    return VersionChange(version.id, version.state, at, version.retired_at)


def retire(
    versions: Iterable[Version], uses: Mapping[str, VersionUse], silent_seconds: int, now: float, *, force: bool
) -> tuple[VersionChange, ...]:
    """Return how the overlap ends early: every previous version that has not ended yet is revoked.

    Empty when there is none.  Unless forced, raises ConflictError naming the last caller when one of them was used
    within `silent_seconds`.
    """
    ending = [v for v in versions if v.state in (PREVIOUS, SUSPENDED)]
    for version in () if force else ending:
        use = uses.get(version.id)
        ended = version.valid_until is not None and version.valid_until <= now
        if use is not None and not ended and use.at + silent_seconds > now:
            raise ConflictError(
                f"version {version.id} was last used at {rfc3339(use.at)}{_by(use)}",
                code="version_in_use",
                hint="move that caller to the new secret, ask for a shorter silence, or use force",
            )
    return tuple(_end(version, REVOKED, now) for version in ending)


def revoke(key: Key, versions: Iterable[Version], reason: str, now: float) -> tuple[VersionChange, ...] | None:
    """Return what becomes of the versions of a key that is revoked for the reason; None when it was already.

    A revoked key stays revoked; only its reason may still become `key_compromise`.  Any other reason than the one on
    record is a ConflictError.
    """
    compromised = reason == RevokeReason.KEY_COMPROMISE
    if key.state == REVOKED:
        if key.revoke_reason == reason:
            return None
        if not compromised:
            raise ConflictError(
                f"key {key.id} is already revoked, as {key.revoke_reason}", code="key_revoked", hint="that is final"
            )
    else:
        require_key_transition(key, REVOKED)
    to = COMPROMISED if compromised else REVOKED
    return tuple(_end(version, to, now) for version in versions if to in VERSION_TRANSITIONS[version.state])


def _by(use: VersionUse) -> str:
    caller = use.callers[0] if use.callers else None
    if caller is None or caller.other:
        return ""
    parts = (("from", caller.ip_network), ("by", caller.user_agent), ("at", caller.endpoint))
    return "".join(f" {word} {value}" for word, value in parts if value is not None)


def _end(version: Version, to: str, now: float) -> VersionChange:
    require_version_transition(version, to)
    until = now if version.valid_until is None else min(version.valid_until, now)
    return VersionChange(version.id, to, until, now if version.retired_at is None else version.retired_at)


# --- keyspaces ---------------------------------------------------------------------------------------------------


def tag_for(environment: str, tag: str | None) -> str:
    """Return what stands for the environment in every key; raises InputError when it has to be given."""
    chosen = tag or ENVIRONMENT_TAGS.get(environment, environment)
    if _is_tag(chosen) is None:
        raise InputError(
            f"expected a tag of 2-16 of a-z0-9, found {chosen[:64]!r}",
            field="tag",
            hint="give a short tag for this environment",
        )
    return chosen


def bound_seconds(keyspace: Keyspace, now: float) -> float:
    """Return how long a node may act on an old state of this keyspace at most.

    While nodes may not know yet that `stale_after_seconds` was lowered, the value before still counts.
    """
    return stale_bound(keyspace.stale_after_seconds, keyspace.stale_after_was, keyspace.stale_after_changed_at, now)


def stale_bound(seconds: float, was: float | None, changed_at: float | None, now: float) -> float:
    """Return what `bound_seconds` does, of the staleness of a keyspace alone."""
    if was is None or changed_at is None or changed_at + was + UNCERTAIN_MARGIN_SECONDS <= now:
        return seconds
    return max(seconds, was)


def with_stale_after(keyspace: Keyspace, seconds: float, now: float) -> Keyspace:
    """Return the keyspace with another staleness bound, remembering the one that may still be acted on."""
    if seconds == keyspace.stale_after_seconds:
        return keyspace
    still = bound_seconds(keyspace, now)
    lowered = still > seconds
    return replace(
        keyspace,
        stale_after_seconds=seconds,
        stale_after_was=still if lowered else None,
        stale_after_changed_at=now if lowered else None,
    )


def retire_peppers(previous: Sequence[int], census: Mapping[int, int], number: int | None) -> tuple[int, ...]:
    """Return the previous peppers that can be retired: those asked for that no version needs.

    Raises ConflictError when there is none.
    """
    asked = [one for one in previous if number is None or one == number]
    if not asked:
        what = "no pepper is previous" if number is None else f"pepper {number} is not a previous one"
        raise ConflictError(what, code="pepper_state", hint="rotate the pepper first")
    free = tuple(one for one in asked if not census.get(one))
    if not free:
        needed = ", ".join(f"pepper {one} is needed by {census[one]} versions" for one in asked)
        raise ConflictError(
            needed, code="pepper_in_use", hint="versions move to the new pepper when they are used, or rotate the keys"
        )
    return free


# --- input -------------------------------------------------------------------------------------------------------


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes without repetitions; raises InputError naming the one that is no pattern."""
    for place, scope in enumerate(scopes):
        try:
            check_pattern(scope)
        except ValueError as error:
            raise InputError(str(error), field=f"scopes[{place}]") from None
    return tuple(dict.fromkeys(scopes))


def check_written_restrictions(restrictions: Restrictions | None, field: str = "restrictions") -> Restrictions | None:
    """Return the restrictions, None when they restrict nothing; raises InputError naming the field."""
    if restrictions is None:
        return None
    try:
        check_restrictions(restrictions)
    except InputError as error:
        if field == "restrictions" or error.field is None:
            raise
        placed = f"{field}{error.field.removeprefix('restrictions')}"
        message = error.message.replace(error.field, placed)
        raise InputError(message, field=placed, hint=error.hint) from None
    if not (restrictions.cidrs or restrictions.origins or restrictions.endpoints):
        return None
    return restrictions


def expiry(expires_at: datetime | None, expires_in_seconds: int | None, now: float) -> float | None:
    """Return when a new key expires; raises InputError when both are given, or when that is not in the future."""
    if expires_in_seconds is not None:
        if expires_at is not None:
            raise InputError(
                "expected one of expires_at and expires_in_seconds, found both", field="expires_in_seconds"
            )
        return now + expires_in_seconds
    at = epoch_of(expires_at, "expires_at")
    if at is not None and at <= now:
        raise InputError(f"expected a time after {rfc3339(now)}, found {rfc3339(at)}", field="expires_at")
    return at


def check_filter(wanted: KeyFilter) -> None:
    """Raise InputError for a filter that no stored value can meet because it is no text a key may have."""
    for field in ("keyspace", "owner", "environment", "plan", "tag", "name"):
        value = getattr(wanted, field)
        if value is not None and (len(value) > FILTER_LENGTH_MAX or not value.isprintable()):
            raise InputError(f"expected at most {FILTER_LENGTH_MAX} printable characters", field=field)


def moment_detail(epoch: float | None) -> str | None:
    """Return a time as an audit leaf shows it."""
    return None if epoch is None else rfc3339(epoch)


def as_detail(restrictions: Restrictions | None) -> dict[str, Detail] | None:
    """Return restrictions as an audit leaf shows them."""
    if restrictions is None:
        return None
    return {
        "cidrs": list(restrictions.cidrs),
        "origins": list(restrictions.origins),
        "endpoints": [{"methods": list(one.methods), "path": one.path} for one in restrictions.endpoints],
    }


def check_window(not_before: float | None, expires_at: float | None) -> None:
    """Raise InputError when the key would expire before it is valid."""
    if not_before is not None and expires_at is not None and expires_at <= not_before:
        raise InputError("expected expires_at to be later than not_before", field="expires_at")
