"""How each rule is looked for: the expression that hyperscan gets, and where around its matches RE2 confirms.

Hyperscan tells a rule and where a match of it ends, every end there is.  So the expression that it gets has no head
that may be missing, no tail that may repeat and no count that can be spared.  RE2 confirms with the rule's own, from
`before` the end to `after`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError
from keyturn.scanner.engine.blurring import blurred
from keyturn.scanner.engine.cuts import head_of, kept_of_last_group, loosened, without_head, without_lead, without_tail
from keyturn.scanner.engine.generic import is_weighed
from keyturn.scanner.engine.literals import required_literals, shortest
from keyturn.scanner.engine.plans import Look, Plan, Split, Way, compiled
from keyturn.scanner.engine.syntax import NotUnderstoodError, parse
from keyturn.scanner.ruleset.checksums import CHECKSUMS

if TYPE_CHECKING:
    from keyturn.scanner.engine.syntax import Node
    from keyturn.scanner.ruleset.model import Rule, Ruleset

WIDTH_MAX: Final = 64 * 1024
"""A window is no wider, whatever an expression could match."""
LITERAL_MIN: Final = 4
"""Literals of an expression that are as long tell more than keywords."""
TELLING: Final = 3
"""An expression without literals as long slows hyperscan down."""


def look_for(rule: Rule) -> Look:
    """Return how a rule is looked for; its expressions are known to be right."""
    if not rule.regex:
        return Look(Plan(Way.NEVER))
    try:
        node = parse(rule.regex)
    except NotUnderstoodError:
        literals = tuple(word.lower().encode() for word in rule.keywords if word)
        return Look(Plan(Way.WHOLE, _bounded(math.inf, rule), 0, literals), rule.regex.encode())
    is_vague = shortest(required_literals(node)) < TELLING
    core = without_lead(node) if is_vague else without_head(node)
    loose = loosened(core) if rule.generic or is_vague else blurred(loosened(core))
    kept, dropped = without_tail(loose)[0], without_tail(core)[1]
    way = Way.WINDOWS if kept else Way.WHOLE
    if is_vague and rule.path:
        way = Way.PATH
    value = kept_of_last_group(loose) if is_weighed(rule) else 0
    plan = Plan(way, _bounded(node.width, rule), _bounded(dropped, rule), _literals(node, rule), value, _split(node))
    return Look(plan, kept.encode("latin-1") if kept else rule.regex.encode())


def _split(node: Node) -> Split | None:
    """Return an expression in parts, so that who searches need not understand it; None when it has but one."""
    head = head_of(node)
    kept, dropped = without_tail(without_head(node) if head is not None else node)
    if not kept or not (dropped or head is not None):
        return None
    if head is None:
        return Split(kept.encode("latin-1"))
    return Split(kept.encode("latin-1"), _bytes_of(head.alphabet), head.most)


@cache
def _bytes_of(alphabet: str) -> bytes:
    """Return the bytes that a class stands for."""
    expression = compiled(alphabet, "head")
    return bytes(byte for byte in range(256) if expression.fullmatch(bytes([byte])) is not None)


def _bounded(width: float, rule: Rule) -> int:
    """Return a width; the rule says how wide one without an end is."""
    return min(rule.window if math.isinf(width) else int(width), WIDTH_MAX)


def _literals(node: Node, rule: Rule) -> tuple[bytes, ...]:
    found = required_literals(node)
    if shortest(found) >= LITERAL_MIN or not rule.keywords:
        return found if shortest(found) > 1 else ()
    return tuple(word.lower().encode() for word in rule.keywords if word)


def check(ruleset: Ruleset) -> None:
    """Raise InputError, which names the rule, when a rule cannot be used."""
    known = {rule.id for rule in ruleset.rules}
    for rule in ruleset.rules:
        _check(rule, known)
    for number, allowed in enumerate(ruleset.allow):
        for expression in (*allowed.paths, *allowed.regexes):
            compiled(expression, f"allowlist {number + 1} of {ruleset.name}")


def _check(rule: Rule, known: set[str]) -> None:
    field = f"rule {rule.id}"
    groups = compiled(rule.regex, field).groups if rule.regex else 0
    if rule.secret_group > groups:
        raise InputError(f"{field}: there is no group {rule.secret_group}, there are {groups}", field=field)
    if rule.path:
        compiled(rule.path, field)
    if not rule.path and not rule.regex:
        raise InputError(f"{field}: it has neither a regex nor a path", field=field)
    if rule.checksum and rule.checksum not in CHECKSUMS:
        raise InputError(f"{field}: no checksum is called {rule.checksum}", field=field)
    for allowed in rule.allow:
        for expression in (*allowed.paths, *allowed.regexes):
            compiled(expression, field)
    for required in rule.requires:
        if required.rule not in known:
            raise InputError(f"{field}: it requires {required.rule}, and there is no such rule", field=field)
