"""The rules of access: pure, one place, read by the door, by `explain` and by everything that hands out rights.

A caller may do an action to a resource if and only if

    1. the action is not one of the system's own, which are never granted; and
    2. its token, where it has scopes, has one that matches the action; and
    3. its token, where it has resources, has one that matches the resource; and
    4. a grant of the principal, or of a role it is a member of, has an action pattern that matches the action, a
       resource pattern that matches the resource, and conditions that hold: the resource's environment is listed,
       the caller's address lies in a listed network, the time is within the window.

No grants means deny.  A condition whose input is absent does not hold: a grant for an environment gives nothing on
a resource without one.  No wildcard matches a segment that starts with `~` (`keyturn.kernel.match`).

Nobody hands out more than they hold: for every action pattern handed out, one grant in force now has to cover
the action pattern and the resource pattern, under conditions that are no stricter than those handed out.  A token
that expires hands out nothing that outlasts it: what it grants has to end, and the tokens it issues have to expire, by
then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from keyturn.errors import CapError, InputError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.match import check_name, check_pattern, compile_patterns, covers, matches
from keyturn.verify.networks import Network, Networks, parse_network
from keyturn.wire.actions import GRANTABLE_ACTIONS, SYSTEM_ACTIONS, Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from keyturn.access.caller import Caller, Conditions, Grant, Resource

INSTANCE: Final = "~instance"
REACH_MAX: Final = 100
"""Past so many beginnings a query is not narrowed: it would cost more to say, and a database takes only so many."""

_ACTION_NAMES: Final = frozenset(str(action) for action in Action)


@dataclass(frozen=True, slots=True)
class Considered:
    """One grant, or the token itself, as it bore on a decision."""

    source: str
    """The grant's id, or `token`."""
    subject: str
    applies: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with everything that was considered; `allowed` is what `may` answers."""

    allowed: bool
    reason: str
    considered: tuple[Considered, ...]


def may(caller: Caller, action: Action | str, resource: Resource, now: float) -> bool:
    """Tell whether the caller may do the action to the resource now; see the module."""
    if _token_refusal(caller, action, resource) is not None:
        return False
    # A loop, and no expression over `any`: it is asked for every access.
    for grant in caller.grants:  # noqa: SIM110
        if _refusal(grant, action, resource, caller.ip, now) is None:
            return True
    return False


def holds_somewhere(caller: Caller, action: Action | str, now: float) -> bool:
    """Tell whether any grant in force gives the action on anything; if not, `may` is false for every resource."""
    return any(
        _any_matches(grant.actions, action) and _not_in_force(grant.conditions, caller.ip, now) is None
        for grant in caller.grants
    )


def reach(caller: Caller, action: Action | str, noun: str, now: float) -> tuple[str, ...] | None:
    """Return how the names below `noun/` begin that the caller may do the action to; None when with anything or much.

    For narrowing a query to what `may` can be true for, which still has to be asked: every name it allows begins so,
    not every name that begins so is allowed.
    """
    below = f"{noun}/"
    found: set[str] = set()
    for grant in caller.grants:
        if not _any_matches(grant.actions, action) or _not_in_force(grant.conditions, caller.ip, now) is not None:
            continue
        literal = grant.resource.partition("*")[0]
        if below.startswith(literal):
            return None
        if literal.startswith(below):
            found.add(literal.removeprefix(below))
    return tuple(sorted(found)) if len(found) <= REACH_MAX else None


def may_know(caller: Caller, action: Action | str, resource: Resource, now: float) -> bool:
    """Tell whether the caller may know that the resource exists.

    It may if it holds the `noun.read` of the action, or that of the resource's own noun, on the resource.  Who may list
    a secret, or reveal it, knows of it too.
    """
    nouns = {action.split(".")[0], _noun(resource.name)}
    knowing = [f"{noun}.read" for noun in nouns]
    if "secret" in nouns:
        knowing += [Action.SECRET_LIST, Action.SECRET_REVEAL]
    return any(may(caller, one, resource, now) for one in knowing)


def explain(caller: Caller, action: Action | str, resource: Resource, now: float) -> Explanation:
    """Decide as `may` does, and say of the token and of every grant whether it applied, and why."""
    against = _token_refusal(caller, action, resource)
    considered = [_considered("token", caller.token_id or "", against)] if caller.token_id else []
    refusals = [(grant, _refusal(grant, action, resource, caller.ip, now)) for grant in caller.grants]
    considered.extend(_considered(grant.id, grant.subject, refusal) for grant, refusal in refusals)
    if against is not None:
        return Explanation(allowed=False, reason=against, considered=tuple(considered))
    by = next((grant for grant, refusal in refusals if refusal is None), None)
    reason = "no grant applies" if by is None else f"granted by {by.id}"
    return Explanation(allowed=by is not None, reason=reason, considered=tuple(considered))


def check_grant(actions: Sequence[str], resource: str, conditions: Conditions) -> None:
    """Refuse a grant whose patterns or conditions can match nothing; raises InputError naming the field.

    An action pattern has to match an action that can be granted: a misspelt one is an error, not a silent deny.
    """
    _check_actions(actions, "actions")
    _check_resources((resource,), "resource")
    for cidr in conditions.cidrs:
        try:
            parse_network(cidr)
        except ValueError as error:
            raise InputError(f"{error}, in {cidr!r}", field="conditions.cidrs") from None
    after, before = conditions.not_after, conditions.not_before
    if after is not None and before is not None and after <= before:
        raise InputError("expected not_after to be later than not_before", field="conditions.not_after")


def is_name(text: str) -> bool:
    """Tell whether anything can have this name; what is none is matched by no grant."""
    try:
        check_name(text)
    except ValueError:
        return False
    return True


def check_scopes(scopes: Sequence[str], resources: Sequence[str]) -> None:
    """Refuse token scopes or resources that match nothing; raises InputError naming the field."""
    if scopes:
        _check_actions(scopes, "scopes")
    _check_resources(resources, "resources")


def uncovered(
    caller: Caller, actions: Iterable[str], resource: str, conditions: Conditions, now: float
) -> tuple[str, ...]:
    """Return the action patterns that the caller may not hand out on the resource pattern; empty when it may all."""
    return tuple(action for action in actions if not _hands_out(caller, (action,), (resource,), conditions, now))


def attenuates(caller: Caller, actions: Iterable[str], resource: str, conditions: Conditions, now: float) -> bool:
    """Tell whether a grant would give no access that the caller does not hold itself."""
    return not uncovered(caller, actions, resource, conditions, now)


def may_issue_token(
    caller: Caller,
    principal: str,
    grants: Iterable[Grant],
    scopes: Sequence[str],
    resources: Sequence[str],
    now: float,
    *,
    expires_at: float | None = None,
) -> bool:
    """Tell whether a token of `principal` would give no access that the caller does not hold itself.

    `grants` are those of the principal.  What the token can do is what its scopes, resources and expiry leave of them,
    so each grant is compared after that narrowing.  For the caller's own principal only its token's bounds count:
    the grants are the same on both sides.  No token outlasts the one that it was issued with.
    """
    if outlasts(caller, expires_at):
        return False
    if principal == caller.principal:
        return _within(scopes, caller.token_scopes) and _within(resources, caller.token_resources)
    return all(
        _hands_out(caller, (action, scope), (grant.resource, kept), _until(grant.conditions, expires_at), now)
        for grant in grants
        for action in grant.actions
        for scope in scopes or (action,)
        for kept in resources or (grant.resource,)
        if not (_disjoint(action, scope) or _disjoint(grant.resource, kept))
    )


def within(cidrs: tuple[str, ...], ip: str | None) -> bool:
    """Tell whether an address lies in one of the networks; an unknown address lies in none."""
    return _networks(cidrs).contain(ip)


def outlasts(caller: Caller, end: float | None) -> bool:
    """Tell whether what ends then (None is never) would outlast the caller's token."""
    return caller.token_expires_at is not None and (end is None or end > caller.token_expires_at)


def require_within_cap(cap: int | None, held: int, adding: int, whose: str) -> None:
    """Raise CapError when `adding` to what is held would pass the cap; None means no cap."""
    if cap is not None and held + adding > cap:
        raise CapError(
            f"{whose} may hold {cap} keys, holds {held}, and {adding} more were asked for",
            hint="revoke keys that are no longer needed, or have the cap raised",
        )


def _token_refusal(caller: Caller, action: str, resource: Resource) -> str | None:
    if action in SYSTEM_ACTIONS:
        return f"{action} is done by the system alone and never granted"
    if action not in _ACTION_NAMES:
        return f"there is no action {action!r}"
    if caller.token_scopes and not _any_matches(caller.token_scopes, action):
        return f"the token's scopes do not include {action}"
    if caller.token_resources and not _any_matches(caller.token_resources, resource.name):
        return f"the token's resources do not include {resource.name}"
    return None


def _refusal(grant: Grant, action: str, resource: Resource, ip: str | None, now: float) -> str | None:
    """Return why the grant does not give the action on the resource, or None if it does."""
    if not _any_matches(grant.actions, action):
        return f"its actions do not include {action}"
    if not matches(grant.resource, resource.name):
        return f"its resource {grant.resource} does not match {resource.name}"
    environments = grant.conditions.environments
    if environments and resource.environment not in environments:
        found = "one without environment" if resource.environment is None else resource.environment
        return f"it is for environments {', '.join(environments)}, and the resource is {found}"
    return _not_in_force(grant.conditions, ip, now)


def _not_in_force(conditions: Conditions, ip: str | None, now: float) -> str | None:
    """Return which condition on the caller itself does not hold, or None."""
    if conditions.unknown:
        return "it has a condition that this release does not know"
    if conditions.not_before is not None and now < conditions.not_before:
        return f"it applies from {rfc3339(conditions.not_before)}"
    if conditions.not_after is not None and now >= conditions.not_after:
        return f"it applied until {rfc3339(conditions.not_after)}"
    if conditions.cidrs and not _networks(conditions.cidrs).contain(ip):
        found = "an unknown address" if ip is None else ip
        return f"it is for callers in {', '.join(conditions.cidrs)}, and the call came from {found}"
    return None


def _considered(source: str, subject: str, refusal: str | None) -> Considered:
    return Considered(source, subject, refusal is None, refusal or "applies")


def _hands_out(
    caller: Caller, actions: Sequence[str], resources: Sequence[str], conditions: Conditions, now: float
) -> bool:
    """Tell whether the caller holds what all of `actions` and all of `resources` match together.

    What several patterns match together is within each, so it is enough that one of them is covered.
    """
    return (
        (not caller.token_scopes or _one_covers(caller.token_scopes, actions))
        and (not caller.token_resources or _one_covers(caller.token_resources, resources))
        and not outlasts(caller, conditions.not_after)
        and any(
            _one_covers(grant.actions, actions)
            and _one_covers((grant.resource,), resources)
            and _as_strict(conditions, grant.conditions)
            and _not_in_force(grant.conditions, caller.ip, now) is None
            for grant in caller.grants
        )
    )


def _one_covers(wide: Iterable[str], narrow: Sequence[str]) -> bool:
    return any(covers(ours, theirs) for ours in wide for theirs in narrow)


def _within(asked: Sequence[str], held: Sequence[str]) -> bool:
    """Tell whether a token's new bounds lie within old ones; empty bounds are none at all."""
    return not held or (bool(asked) and all(_one_covers(held, (one,)) for one in asked))


def _as_strict(given: Conditions, held: Conditions) -> bool:
    """Tell whether everything that passes the given conditions passes the held ones."""
    if given.unknown or held.unknown:
        return False
    if held.environments and not (given.environments and set(given.environments) <= set(held.environments)):
        return False
    if held.not_before is not None and (given.not_before is None or given.not_before < held.not_before):
        return False
    if held.not_after is not None and (given.not_after is None or given.not_after > held.not_after):
        return False
    return not held.cidrs or (bool(given.cidrs) and all(_inside(one, held.cidrs) for one in given.cidrs))


def _until(conditions: Conditions, end: float | None) -> Conditions:
    """Return the conditions with nothing that holds past the end."""
    if end is None or (conditions.not_after is not None and conditions.not_after <= end):
        return conditions
    return replace(conditions, not_after=end)


def _inside(cidr: str, wider: Iterable[str]) -> bool:
    try:
        inner = parse_network(cidr)
        return any(_contains(parse_network(one), inner) for one in wider)
    except ValueError:
        return False


def _contains(outer: Network, inner: Network) -> bool:
    family, address, length = outer
    shift = (32 if family == 4 else 128) - length
    return inner[0] == family and inner[2] >= length and inner[1] >> shift == address >> shift


def _disjoint(one: str, other: str) -> bool:
    """Tell, for sure, that no name is matched by both; a pair with two wildcards counts as overlapping."""
    if "*" not in one:
        return not matches(other, one)
    return "*" not in other and not matches(one, other)


def _any_matches(patterns: Iterable[str], name: str) -> bool:
    return compile_patterns(patterns).matches(name)


def _noun(resource: str) -> str:
    parts = resource.split("/")
    return parts[1] if parts[0] == INSTANCE and len(parts) > 1 else parts[0]


def _check_actions(patterns: Sequence[str], field: str) -> None:
    if not patterns:
        raise InputError("expected at least one action pattern, found none; empty means deny", field=field)
    for pattern in patterns:
        _check_resources((pattern,), field)
        if not any(matches(pattern, action) for action in GRANTABLE_ACTIONS):
            raise InputError(
                f"expected a pattern that matches an action, found {pattern!r}",
                field=field,
                hint="actions are `noun.verb`, such as key.issue, key.* or *",
            )


def _check_resources(patterns: Sequence[str], field: str) -> None:
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise InputError(str(error), field=field) from None


@lru_cache(maxsize=1024)
def _networks(cidrs: tuple[str, ...]) -> Networks:
    """Read a grant's networks; one that cannot be read makes the condition hold for nobody."""
    try:
        return Networks([parse_network(cidr) for cidr in cidrs])
    except ValueError:
        return Networks(())
