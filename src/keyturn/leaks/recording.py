"""Recording: what was seen becomes findings, inside a unit of work.

    sighting -> match -> the finding of that value, new or known -> its place -> the policy that counts -> an action

One value is one finding, whatever the number of its places and of its reports.  What is known of it follows the last
report that the server could match.  A finding that a person has dismissed or accepted stays so, unless somebody shows
the key itself.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from keyturn.kernel.ids import new_id
from keyturn.kernel.redact import scrub
from keyturn.leaks import policy_store, rules, store
from keyturn.leaks.matching import Question
from keyturn.leaks.model import KNOWN, OPEN_STATES, POSSESSION_POLICY, Event, Finding, Known, Place, Taken
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.certainty import Certainty
from keyturn.wire.leaks import ActionState, FindingState, LeakAction, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.access.door import Operation
    from keyturn.audit.leaf import Detail
    from keyturn.leaks.matching import Matching
    from keyturn.leaks.model import Policy, Sighting
    from keyturn.wire.actions import Action

_REDACTED: Final = "[redacted]"
_WORD: Final = re.compile(r"[^\s/\\?&=#:@;,'\"]{8,}")


@dataclass(slots=True)
class _Draft:
    """A finding while a report is taken."""

    was: Finding | None
    now: Finding
    events: list[Event] = field(default_factory=list)
    told: bool = False
    """Whether there is something to notify of."""


class Recording:
    """Takes reports; the caller has authorised them."""

    def __init__(self, matching: Matching) -> None:
        """Match values with this."""
        self._matching = matching

    def take(
        self, op: Operation, source: str, origin: Origin, sightings: Sequence[Sighting], recorded_as: Action
    ) -> list[Taken]:
        """Keep what was seen, in the order given, and leave a leaf for each known value there is news of."""
        questions = [Question(one.sha256, one.version, one.length) for one in sightings]
        answers = self._matching.match(op.connection, op.workspace, questions, op.now)
        digests = [one.sha256 for one in sightings]
        names = self._matching.fingerprints(op.connection, op.workspace, digests, op.now)
        stored = store.by_fingerprint(op.connection, op.workspace, list(dict.fromkeys(names)))
        policies = policy_store.list_policies(op.connection, op.workspace) if sightings else ()
        drafts: dict[bytes, _Draft] = {}
        for place, (name, sighting) in enumerate(zip(names, sightings, strict=True)):
            known = answers[place].known if place in answers else None
            if name not in drafts:
                drafts[name] = _draft(op, stored.get(name), name, sighting, known, origin)
            draft = drafts[name]
            _refresh(op, draft, sighting, known, origin)
            _respond(op, draft, policies, origin, known, sighting)
        places = [(drafts[name].now, _scrubbed(one)) for name, one in zip(names, sightings, strict=True)]
        _keep(op, list(drafts.values()), store.see_places(op.connection, source, places, op.now))
        for draft in drafts.values():
            _tell(op, draft, recorded_as)
        return [Taken(drafts[name].now, drafts[name].was is None) for name in names]


def event_of(op: Operation, what: str, detail: dict[str, str] | None = None) -> Event:
    """Return something that became of a finding by the operation's caller."""
    return Event(op.now, op.caller.principal, what, detail or {})


def notice_of(found: Finding) -> dict[str, Detail]:
    """Return what a leaf about a finding says: ids and names, so that its owner can be told."""
    told = {
        "certainty": str(found.certainty),
        "state": str(found.state),
        "owner": found.owner,
        "environment": found.environment,
        "keyspace": found.keyspace,
        "key": found.key,
        "version": found.version,
        "secret": found.secret,
        "path": found.secret_path,
        "action": found.action,
        "action_state": str(found.action_state),
        "policy": found.policy,
    }
    return {name: value for name, value in told.items() if value}


def _draft(
    op: Operation, was: Finding | None, name: bytes, sighting: Sighting, known: Known | None, origin: Origin
) -> _Draft:
    if was is not None:
        return _Draft(was, was)
    closed = known is not None and not known.works
    made = Finding(
        id=new_id("fnd", op.now),
        workspace=op.workspace,
        fingerprint=name,
        certainty=_claimed(sighting),
        rule=sighting.rule,
        provider=sighting.provider,
        title=_without_value(sighting.title, sighting),
        masked=_masked(sighting),
        origin=origin,
        state=FindingState.ROTATED if closed else FindingState.OPEN,
        environment=sighting.environment,
        owner="",
        keyspace="",
        key="",
        version="",
        secret="",
        secret_path="",
        sequence=0,
        field="",
        verdict=sighting.verdict,
        places_count=0,
        first_seen_at=op.now,
        last_seen_at=op.now,
        accepted_until=None,
        closed_at=op.now if closed else None,
        due_at=None,
        attempts=0,
        last_error=None,
        action="",
        action_state=ActionState.NONE,
        policy="",
        revision=1,
    )
    return _Draft(None, made, [event_of(op, "reported", {"origin": str(origin)})], told=True)


def _refresh(op: Operation, draft: _Draft, sighting: Sighting, known: Known | None, origin: Origin) -> None:
    """Bring a finding up to what is known of it now."""
    found = replace(draft.now, last_seen_at=op.now)
    if known is not None:
        found = with_known(found, known)
    elif found.certainty is Certainty.GENERIC:
        found = replace(found, certainty=_claimed(sighting))
    until = found.accepted_until
    over = found.state is FindingState.ACCEPTED and until is not None and until <= op.now
    if known is not None and known.works:
        # Whoever shows the key has it: that it was dismissed, or taken on as a risk, was about less than that.
        shown = origin is Origin.POSSESSION and found.state in {FindingState.FALSE_POSITIVE, FindingState.ACCEPTED}
        over = over or shown or found.state is FindingState.ROTATED
    if over:
        found = rules.moved(found, FindingState.OPEN, op.now)
        draft.events.append(event_of(op, "reopened"))
        draft.told = True
    elif known is not None and not known.works and found.state in OPEN_STATES:
        found = rules.moved(found, FindingState.ROTATED, op.now)
        draft.events.append(event_of(op, "closed", {"because": known.state}))
    draft.now = found


def _respond(
    op: Operation,
    draft: _Draft,
    policies: Sequence[Policy],
    origin: Origin,
    known: Known | None,
    sighting: Sighting,
) -> None:
    """Set what is done about a finding, if this place of it asks for more than was done or is to be done."""
    found = draft.now
    # What was known and is gone altogether is ended by nobody any more.
    if found.state not in OPEN_STATES or (known is None and found.certainty in KNOWN):
        return
    policy = rules.applying(policies, origin, known, found.certainty, sighting.place, sighting.environment)
    action = LeakAction.NOTIFY if policy is None else policy.action
    name, after = ("", 0) if policy is None else (policy.id, policy.after_seconds)
    if policy is None and origin is Origin.POSSESSION and known is not None and known.certainty is Certainty.OWN:
        action, name = LeakAction.REVOKE, POSSESSION_POLICY
    if not rules.replaces(action, name, op.now + after, found):
        return
    draft.told = True
    if action is LeakAction.NOTIFY:
        draft.now = replace(found, action=str(action), action_state=ActionState.NOTIFIED, policy=name)
        return
    draft.now = replace(
        found,
        action=str(action),
        action_state=ActionState.DUE,
        policy=name,
        due_at=op.now + after,
        attempts=0,
        last_error=None,
    )
    draft.events.append(event_of(op, "action_due", {"action": str(action), "policy": name}))


def _keep(op: Operation, drafts: Sequence[_Draft], added: Mapping[str, int]) -> None:
    """Store findings with the places that were added to them, and what became of them."""
    for draft in drafts:
        found = replace(draft.now, places_count=draft.now.places_count + added.get(draft.now.id, 0))
        changed = draft.was is not None and found != draft.was
        draft.now = replace(found, revision=found.revision + 1) if changed else found
    store.insert_findings(op.connection, [one.now for one in drafts if one.was is None])
    store.update_findings(op.connection, [one.now for one in drafts if one.was is not None and one.now != one.was])
    store.insert_events(op.connection, [(one.now, one.events) for one in drafts])


def _tell(op: Operation, draft: _Draft, recorded_as: Action) -> None:
    if draft.told and draft.now.certainty in KNOWN:
        op.record(
            recorded_as,
            draft.now.resource,
            kind=ChangeKind.FINDING,
            entity=draft.now.id,
            detail=notice_of(draft.now),
        )


def with_known(found: Finding, known: Known) -> Finding:
    """Return a finding with what is known of its value now."""
    return replace(
        found,
        certainty=known.certainty,
        environment=known.environment,
        owner=known.owner,
        keyspace=known.keyspace,
        key=known.key,
        version=known.version,
        secret=known.secret,
        secret_path=known.secret_path,
        sequence=known.sequence,
        field=known.field,
    )


def _claimed(sighting: Sighting) -> Certainty:
    """Return what a scanner may say of a value by itself."""
    return Certainty.GENERIC if sighting.certainty is Certainty.GENERIC else Certainty.PROVIDER


def _masked(sighting: Sighting) -> str:
    """Return the masked value as it was told, unless the value itself stands in it."""
    text = sighting.masked.strip()
    digests = (
        hashlib.sha256(text[start : start + sighting.length].encode("utf-8", "surrogatepass")).digest()
        for start in range(len(text) - sighting.length + 1)
    )
    return _REDACTED if sighting.sha256 in digests else scrub(text)


def _scrubbed(sighting: Sighting) -> Place:
    place = sighting.place
    members = tuple(_without_value(one, sighting) for one in place.members)
    return replace(place, path=_without_value(place.path, sighting), members=members)


def _without_value(text: str, sighting: Sighting) -> str:
    """Return a text without the value, where it is a word of it, such as the name of a file or a part of an address."""

    def kept(word: re.Match[str]) -> str:
        if len(word[0]) != sighting.length:
            return word[0]
        digest = hashlib.sha256(word[0].encode("utf-8", "surrogatepass")).digest()
        return _REDACTED if digest == sighting.sha256 else word[0]

    return scrub(_WORD.sub(kept, text))
