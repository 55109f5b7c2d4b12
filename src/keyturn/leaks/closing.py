"""Closing: a finding of a key or secret that works no more closes itself, and opens again when that works again.

Whoever ended it, and however, counts alike.  One finding is brought in line in one unit of work, which looks again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyturn.access.system import system_operation
from keyturn.leaks import rules, store
from keyturn.leaks.model import KNOWN
from keyturn.leaks.recording import event_of, notice_of, with_known
from keyturn.leaks.standing import FOLLOWED, standing
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.leaks import FindingState

if TYPE_CHECKING:
    from keyturn.audit.leaf import Detail
    from keyturn.leaks.model import Finding, Known
    from keyturn.storage.transaction import Transaction


def would_change(of: Finding, known: Known | None, now: float) -> bool:
    """Tell whether a finding has to be brought in line."""
    return _brought_in_line(of, known, now)[0] != of


def bring_in_line(transaction: Transaction, workspace: str, finding_id: str) -> bool:
    """Close or open a finding as what leaked stands now; False when it is in line."""
    found = store.load_finding(transaction.connection, workspace, finding_id)
    if found is None:
        return False
    op = system_operation(transaction, workspace)
    known = standing(op.connection, found, op.now)
    changed, event, because = _brought_in_line(found, known, op.now)
    if changed == found:
        return False
    saved = replace(changed, revision=found.revision + 1)
    store.update_finding(op.connection, saved)
    if event:
        store.insert_events(op.connection, [(saved, [event_of(op, event, {"because": because})])])
        detail: dict[str, Detail] = {**notice_of(saved), "event": event, "because": because}
        op.record(Action.SYSTEM_FINDING_CLOSED, saved.resource, kind=ChangeKind.FINDING, entity=saved.id, detail=detail)
    return True


def _brought_in_line(of: Finding, known: Known | None, now: float) -> tuple[Finding, str, str]:
    """Return a finding as it should be, and what became of it and why; both empty when only details differ."""
    until = of.accepted_until
    if of.state is FindingState.ACCEPTED and until is not None and until <= now:
        return rules.moved(of, FindingState.OPEN, now), "reopened", "accepted_until"
    if of.certainty not in KNOWN or of.state not in FOLLOWED:
        return of, "", ""
    # What was destroyed cannot be told from what never was: what is known of it stays.
    current = of if known is None else with_known(of, known)
    works = known is not None and known.works
    if works and of.state is FindingState.ROTATED:
        return rules.moved(current, FindingState.OPEN, now), "reopened", "works_again"
    if not works and of.state is not FindingState.ROTATED:
        closed = rules.moved(current, FindingState.ROTATED, now)
        return closed, "closed", "destroyed" if known is None else known.state
    return current, "", ""
