"""The rules of leases: which state follows which, when something is due, how long a lease may live.

    intent ----> active ----> revoking ----> revoked
      |             `-----------^ |  ^ `---------^      (active to revoked: what ends by itself)
      |                           v  | retry     | resolved
      |                        irrevocable ------'
      v                           ^
    abandoned --> lingering --> failed

Lingering and failed go back to abandoned when a creation that was given up comes to its end after all.
An attempt that failed leaves the state as it is, and the next is due after a pause that doubles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.errors import BrokenInvariantError, ConflictError, InputError
from keyturn.kernel.redact import scrub
from keyturn.wire.leases import LeaseState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.leases.model import Lease, Role

TRANSITIONS: Final[dict[LeaseState, frozenset[LeaseState]]] = {
    LeaseState.INTENT: frozenset({LeaseState.ACTIVE, LeaseState.ABANDONED, LeaseState.FAILED}),
    LeaseState.ACTIVE: frozenset({LeaseState.ACTIVE, LeaseState.REVOKING, LeaseState.REVOKED}),
    LeaseState.REVOKING: frozenset({LeaseState.REVOKING, LeaseState.REVOKED, LeaseState.IRREVOCABLE}),
    LeaseState.ABANDONED: frozenset({LeaseState.ABANDONED, LeaseState.LINGERING, LeaseState.IRREVOCABLE}),
    LeaseState.LINGERING: frozenset(
        {LeaseState.LINGERING, LeaseState.ABANDONED, LeaseState.FAILED, LeaseState.IRREVOCABLE}
    ),
    LeaseState.IRREVOCABLE: frozenset({LeaseState.REVOKING, LeaseState.REVOKED}),
    LeaseState.REVOKED: frozenset(),
    LeaseState.FAILED: frozenset({LeaseState.ABANDONED}),
}
"""What may follow each state."""
OVER: Final = frozenset({LeaseState.REVOKED, LeaseState.FAILED})
"""Nothing is left to be done, and no account exists."""
LIVE: Final = frozenset(LeaseState) - OVER
"""An account exists, or may exist: these count against caps."""

ERROR_CHARACTERS_MAX: Final = 300
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_JITTER: Final = 0.5


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the system is, in seconds."""

    create: float = 20.0
    """A creation takes so long at most."""
    grace: float = 60.0
    """An intent that is older is given up; longer than any creation can take."""
    linger: float = 60.0
    """Nothing that was asked of a provider arrives later than this."""
    claim: float = 45.0
    """Nobody else ends a lease that somebody is ending."""
    first_pause: float = 10.0
    attempts: int = 6


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a lease, and when something is due about it next."""

    state: LeaseState
    due_at: float | None
    attempts: int = 0
    error: str | None = None


def require_transition(was: LeaseState, becomes: LeaseState) -> None:
    """Raise BrokenInvariantError for what may not follow."""
    if becomes not in TRANSITIONS[was]:
        message = f"a lease that is {was} cannot become {becomes}"
        raise BrokenInvariantError(message)


def when_due(lease: Lease) -> LeaseState:
    """Return the state under which what is due about a lease is worked on."""
    if lease.state is LeaseState.INTENT:
        return LeaseState.ABANDONED
    return LeaseState.REVOKING if lease.state is LeaseState.ACTIVE else lease.state


def after_drop(state: LeaseState, now: float, timing: Timing) -> Step:
    """Return what follows when the account was dropped; raises BrokenInvariantError for a state without an end."""
    if state is LeaseState.ABANDONED:
        return Step(LeaseState.LINGERING, now + timing.linger)
    if state in {LeaseState.LINGERING, LeaseState.REVOKING}:
        return Step(LeaseState.FAILED if state is LeaseState.LINGERING else LeaseState.REVOKED, None)
    message = f"the account of a lease that is {state} was dropped"
    raise BrokenInvariantError(message)


def after_failure(state: LeaseState, attempts: int, error: str, now: float, *, chance: float, timing: Timing) -> Step:
    """Return what follows when the account could not be dropped; `attempts` counts this one, `chance` is 0 to 1."""
    if attempts >= timing.attempts:
        return Step(LeaseState.IRREVOCABLE, None, attempts, error)
    pause = timing.first_pause * 2.0 ** (attempts - 1) * (1 + _JITTER * (2 * chance - 1))
    return Step(state, now + pause, attempts, error)


def ends(role: Role, ttl_seconds: int | None, seconds_min: int, now: float) -> tuple[float, float]:
    """Return when a new lease ends, and when it does at the latest; raises InputError for a time out of bounds."""
    most = now + role.max_ttl_seconds
    if ttl_seconds is None:
        return min(now + role.ttl_seconds, most), most
    if ttl_seconds > role.max_ttl_seconds:
        raise InputError(
            f"expected at most {role.max_ttl_seconds} seconds, found {ttl_seconds}",
            field="ttl_seconds",
            hint="ask for less, or have the role's max_ttl_seconds raised",
        )
    if ttl_seconds < seconds_min:
        raise InputError(f"expected at least {seconds_min} seconds, found {ttl_seconds}", field="ttl_seconds")
    return now + ttl_seconds, most


def renewed(lease: Lease, increment_seconds: int | None, now: float) -> float:
    """Return when a renewed lease ends: the increment counts from now, and never passes the lease's most.

    Raises ConflictError when the lease is not active, or its time is over.
    """
    if lease.state is not LeaseState.ACTIVE or now >= lease.expires_at:
        state = "over" if lease.state is LeaseState.ACTIVE else lease.state
        raise ConflictError(f"the lease {lease.id} is {state} and cannot be renewed", hint="create another one")
    return min(now + (increment_seconds or lease.ttl_seconds), lease.max_expires_at)


def require_times(ttl_seconds: int, max_ttl_seconds: int) -> None:
    """Raise InputError unless the usual time is within the most."""
    if ttl_seconds > max_ttl_seconds:
        raise InputError(
            f"expected at most max_ttl_seconds ({max_ttl_seconds}), found {ttl_seconds}", field="ttl_seconds"
        )


def account_name(role: str, chance: str) -> str:
    """Build the name of an account: letters, digits, `_`, at most the 32 MySQL takes; `chance` is 14 of base62."""
    return f"kt_{role.replace('-', '_')[:12]}_{chance}"


def public_error(text: str, secrets: Iterable[str] = ()) -> str:
    """Return what a provider said, on one bounded line and without any of the secrets it may repeat."""
    for secret in sorted((one for one in secrets if len(one) > 2), key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    line = _CONTROL.sub(" ", scrub(text)).strip()
    return line if len(line) <= ERROR_CHARACTERS_MAX else line[: ERROR_CHARACTERS_MAX - 1] + "…"
