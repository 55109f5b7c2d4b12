"""The rules of leaks: which policy counts, what a decision changes, and when to try again.  Pure.

    open            -> confirmed, false_positive, accepted, rotated
    confirmed       -> open, false_positive, accepted, rotated
    false_positive  -> open
    accepted        -> open (also when its date has come), false_positive, rotated
    rotated         -> open

An own or held value is `rotated` exactly as long as it does not work; nobody can say so of one that works.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keyturn.errors import ConflictError, InputError
from keyturn.kernel.match import check_pattern, matches
from keyturn.leaks.model import KNOWN, OPEN_STATES, POSSESSION_POLICY
from keyturn.wire.actions import Action
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import ActionState, Decision, FindingState, LeakAction

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from keyturn.leaks.model import Finding, Known, Place, Policy
    from keyturn.wire.leaks import Origin, PolicyScope

WAITS_SECONDS: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0)
"""How long to wait after each failed try of an action; after the last one it is given up."""
SYSTEM_KEYSPACE: Final = "~system"
RIGHTS: Final[Mapping[LeakAction, Action]] = {
    LeakAction.ROTATE: Action.KEY_ROTATE,
    LeakAction.DISABLE: Action.KEY_DISABLE,
    LeakAction.REVOKE: Action.KEY_REVOKE,
}
"""What somebody has to hold whose policy does it."""
_STRENGTH: Final = {"": 0, LeakAction.NOTIFY: 1, LeakAction.ROTATE: 2, LeakAction.DISABLE: 3, LeakAction.REVOKE: 4}
_ALLOWED: Final[Mapping[FindingState, frozenset[FindingState]]] = {
    FindingState.OPEN: frozenset(
        {FindingState.CONFIRMED, FindingState.FALSE_POSITIVE, FindingState.ACCEPTED, FindingState.ROTATED}
    ),
    FindingState.CONFIRMED: frozenset(
        {FindingState.OPEN, FindingState.FALSE_POSITIVE, FindingState.ACCEPTED, FindingState.ROTATED}
    ),
    FindingState.FALSE_POSITIVE: frozenset({FindingState.OPEN}),
    FindingState.ACCEPTED: frozenset({FindingState.OPEN, FindingState.FALSE_POSITIVE, FindingState.ROTATED}),
    FindingState.ROTATED: frozenset({FindingState.OPEN}),
}
_BECOMES: Final[Mapping[Decision, FindingState]] = {
    Decision.CONFIRM: FindingState.CONFIRMED,
    Decision.DISMISS: FindingState.FALSE_POSITIVE,
    Decision.ACCEPT: FindingState.ACCEPTED,
    Decision.REOPEN: FindingState.OPEN,
    Decision.CLOSE: FindingState.ROTATED,
}


# --- decisions ---------------------------------------------------------------------------------------------------


def decided(of: Finding, decision: Decision, until: float | None, now: float, *, works: bool) -> Finding:
    """Return a finding after a decision; the same one when that holds already.

    `works` tells of an own or held value whether it does.  An action that was due is dropped, unless the finding is
    confirmed or open.  Raises ConflictError for what cannot be, InputError for an end that makes no sense.
    """
    to = _BECOMES[decision]
    if until is not None and to is not FindingState.ACCEPTED:
        raise InputError("only accepting has an end", field="until")
    if until is not None and until <= now:
        raise InputError("expected a time to come", field="until")
    if to is of.state and until == of.accepted_until:
        return of
    if to is not of.state and to not in _ALLOWED[of.state]:
        raise ConflictError(f"finding {of.id} is {of.state} and cannot become {to}", code="finding_state")
    if of.certainty in KNOWN and to is FindingState.ROTATED and works:
        raise ConflictError(
            f"what finding {of.id} is about still works",
            code="still_works",
            hint="rotate, disable or revoke it, and the finding closes itself",
        )
    if of.certainty in KNOWN and of.state is FindingState.ROTATED and not works:
        raise ConflictError(
            f"what finding {of.id} is about works no more", code="finding_state", hint="it opens itself if it does"
        )
    return moved(of, to, now, until)


def moved(of: Finding, to: FindingState, now: float, until: float | None = None) -> Finding:
    """Return a finding in another state; what was to be done is dropped where nothing is to be done any more."""
    closed = now if to is FindingState.ROTATED else None
    changed = replace(of, state=to, accepted_until=until, closed_at=closed)
    if to in OPEN_STATES or of.due_at is None:
        return changed
    return replace(changed, due_at=None, action_state=ActionState.NONE, action="", policy="")


# --- policies ----------------------------------------------------------------------------------------------------


def applying(
    policies: Iterable[Policy], origin: Origin, known: Known | None, claimed: Certainty, place: Place, environment: str
) -> Policy | None:
    """Return the policy that counts for a value at a place: the first by position, then by name."""
    for one in sorted(policies, key=lambda policy: (policy.position, policy.name)):
        if applies(one.applies, origin, known, claimed, place, environment):
            return one
    return None


def applies(
    scope: PolicyScope, origin: Origin, known: Known | None, claimed: Certainty, place: Place, environment: str
) -> bool:
    """Tell whether a policy is for a value at a place."""
    certainty = claimed if known is None else known.certainty
    where = environment if known is None else known.environment
    return (
        (not scope.origins or origin in scope.origins)
        and (not scope.certainties or certainty in scope.certainties)
        and (not scope.environments or where in scope.environments)
        and (not scope.contexts or not set(scope.contexts).isdisjoint(place.contexts))
        and (not scope.paths or any(is_like(pattern, place.path) for pattern in scope.paths))
        and _is_of(scope, known)
    )


def _is_of(scope: PolicyScope, known: Known | None) -> bool:
    """Tell whether the value is one of those that a policy names; an own key by keyspace, a held secret by path."""
    if known is None:
        return not (scope.keyspaces or scope.secrets)
    if known.certainty is Certainty.OWN:
        # A management token is meant by a policy that says so, and by no other.
        patterns = scope.keyspaces or (() if known.system or scope.secrets else ("*",))
        return any(matches(pattern, known.keyspace) for pattern in patterns)
    patterns = scope.secrets or (() if scope.keyspaces else ("*",))
    return any(is_like(pattern, known.secret_path) for pattern in patterns)


def still_means(scope: PolicyScope, found: Finding, known: Known | None) -> bool:
    """Tell whether a policy, which may have been changed since it was chosen, is for the value of a finding at all.

    Places are not asked about: a finding has many, and the policy was chosen for one of them.
    """
    if known is None:
        return True
    return (
        (not scope.certainties or found.certainty in scope.certainties)
        and (not scope.environments or known.environment in scope.environments)
        and _is_of(scope, known)
    )


def is_like(pattern: str, text: str) -> bool:
    """Tell whether a text is like a pattern, in which `*` stands for any characters; in time linear in both."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])


def check_scope(scope: PolicyScope, action: LeakAction) -> None:
    """Raise InputError for a policy that could not do what it says, or that names what cannot be."""
    for pattern in scope.keyspaces:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise InputError(str(error), field="applies.keyspaces") from None
    if action is LeakAction.NOTIFY:
        return
    if scope.certainties != (Certainty.OWN,):
        raise InputError(
            f"only issued keys can be given to {action}",
            field="applies.certainties",
            hint='say "certainties": ["own"]; a held secret is rotated where it was issued',
        )
    if scope.secrets:
        raise InputError("a policy for issued keys names no secrets", field="applies.secrets")
    if SYSTEM_KEYSPACE in scope.keyspaces and (action is not LeakAction.REVOKE or len(scope.keyspaces) > 1):
        raise InputError(
            "management tokens are revoked, by a policy of their own",
            field="applies.keyspaces",
            hint='say "keyspaces": ["~system"] and action revoke, and nothing else there',
        )


def is_stronger(action: str, than: str) -> bool:
    """Tell whether an action does more than another one."""
    return _STRENGTH.get(action, 0) > _STRENGTH.get(than, 0)


def replaces(action: LeakAction, policy: str, due_at: float, of: Finding) -> bool:
    """Tell whether an action that is asked for takes the place of what was done, or is to be done, about a finding.

    It does when it does more, or the same sooner.  What was refused or given up counts for no more than that somebody
    was told, unless it is the same policy that asks again; the holder of the key may ask again.
    """
    asked_anew = policy != of.policy or policy == POSSESSION_POLICY
    stuck = of.action_state in {ActionState.REFUSED, ActionState.FAILED} and asked_anew
    if is_stronger(action, LeakAction.NOTIFY if stuck else of.action):
        return True
    # One that was tried already waits for its next try: reports must not begin its tries anew.
    return action == of.action and of.due_at is not None and not of.attempts and due_at < of.due_at


def retry_at(attempts: int, now: float) -> float | None:
    """Return when to try again after so many failed tries; None when it is given up."""
    return now + WAITS_SECONDS[attempts - 1] if attempts <= len(WAITS_SECONDS) else None


def next_command(certainty: Certainty, known_key: str, secret_path: str, *, works: bool, owner: str = "") -> str | None:
    """Return what a person would run next; None when nothing is left to do."""
    if not works:
        return None
    if certainty is Certainty.OWN and known_key.startswith("tok_"):
        return f"keyturn principals tokens revoke {owner} {known_key}"
    if certainty is Certainty.OWN:
        return f"keyturn keys rotate {known_key}"
    if certainty is Certainty.HELD and secret_path:
        return f"keyturn secrets put {secret_path}"
    return None
