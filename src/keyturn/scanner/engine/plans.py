"""How each rule is looked for: the expression that hyperscan gets, and where around its matches RE2 confirms.

Hyperscan tells a rule and where a match of it ends, every end there is.  So the expression that it gets has no head
that may be missing, no tail that may repeat and no count that can be spared.  RE2 confirms with the rule's own, from
`before` the end to `after`.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import InputError
from keyturn.scanner.engine.syntax import (
    NotUnderstoodError,
    loosened,
    parse,
    required_literals,
    shortest,
    without_head,
    without_lead,
    without_tail,
)
from keyturn.scanner.ruleset.checksums import CHECKSUMS

if TYPE_CHECKING:
    import re2

    from keyturn.scanner.engine.syntax import Node
    from keyturn.scanner.ruleset.model import Rule, Ruleset

PROGRAM_MAX: Final = 30_000
"""Most instructions of a compiled expression: time is proportional to them, where RE2 finds no faster way."""
EXPRESSION_MAX: Final = 64 * 1024
MEMORY_MAX: Final = 32 << 20
"""What RE2 may use for one expression."""
WIDTH_MAX: Final = 64 * 1024
"""A window is no wider, whatever an expression could match."""
LITERAL_MIN: Final = 4
"""Literals of an expression that are as long tell more than keywords."""
TELLING: Final = 3
"""An expression without literals as long slows hyperscan down."""


class Way(IntEnum):
    """How a rule is looked for."""

    WINDOWS = 0
    """By the ends of its matches, and confirmed around them."""
    WHOLE = 1
    """Whether it is there at all, and confirmed over everything: its matches end nearly everywhere."""
    ALWAYS = 2
    """Confirmed over everything: nothing faster can tell whether it is there."""
    NEVER = 3
    """It has no expression."""
    PATH = 4
    """Confirmed over everything, in documents of its path alone: its expression tells too little of itself."""


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """How one rule is looked for.

    `before` is also the most bytes that a match can be long.
    `literals` are in lower case, and one of them stands in every match.
    """

    way: Way
    before: int = 0
    after: int = 0
    literals: tuple[bytes, ...] = ()


class Look(msgspec.Struct, frozen=True):
    """A plan and the expression of it that hyperscan gets."""

    plan: Plan
    expression: bytes = b""


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
    kept, dropped = without_tail(loosened(core))[0], without_tail(core)[1]
    way = Way.WINDOWS if kept else Way.WHOLE
    if is_vague and rule.path:
        way = Way.PATH
    plan = Plan(way, _bounded(node.width, rule), _bounded(dropped, rule), _literals(node, rule))
    return Look(plan, kept.encode("latin-1") if kept else rule.regex.encode())


def _bounded(width: float, rule: Rule) -> int:
    """Return a width; the rule says how wide one without an end is."""
    return min(rule.window if math.isinf(width) else int(width), WIDTH_MAX)


def _literals(node: Node, rule: Rule) -> tuple[bytes, ...]:
    found = required_literals(node)
    if shortest(found) >= LITERAL_MIN or not rule.keywords:
        return found if shortest(found) > 1 else ()
    return tuple(word.lower().encode() for word in rule.keywords if word)


def compiled(expression: str, field: str, *, latin: bool = False, captures: bool = True) -> re2._Regexp:
    """Compile an expression for bytes; raises InputError that names the field.

    `latin` says that its bytes are characters of Latin-1 already, as `syntax` has them.
    """
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = MEMORY_MAX
    options.never_capture = not captures
    if len(expression) > EXPRESSION_MAX:
        raise InputError(f"{field}: the expression is longer than {EXPRESSION_MAX} characters", field=field)
    try:
        found = re2.compile(expression.encode("latin-1" if latin else "utf-8"), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it is refused"
        told = reason.decode("latin-1") if isinstance(reason, bytes) else str(reason)
        raise InputError(f"{field}: the expression is not one of RE2: {told}", field=field) from None
    if found.programsize > PROGRAM_MAX:
        raise InputError(f"{field}: the expression is too large: write shorter repetitions", field=field)
    return found


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
