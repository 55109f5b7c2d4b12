"""What plans, owners, keyspaces and keys are given on the command line: limits, quotas, restrictions in shadow, a plan.

    --limit minute=100/60s                               100 calls a minute
    --limit minute=100/1m,burst=20,per=owner,shadow      20 at once; shared by the owner's keys; refuses nothing yet
    --limit calls=5/30s,concurrency                      5 calls in flight; a slot is free again after 30 seconds
    --quota monthly=10000/month                          10000 calls a calendar month
    --quota credits=500                                  500 prepaid calls
    --quota credits=0,refill=1000/month@31               raised to 1000 on the last day of every month

`manual` after a comma: charged only by a verification that names it.  `on-store-error=allow`: admit while the store of
the counters is down.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from keyturn.cli.output import cell
from keyturn.cli.policy import read_restrictions
from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMIT: Final = re.compile(r"([^=]+)=([0-9]{1,12})/([0-9]{1,9})([smhd]?)")
_QUOTA: Final = re.compile(r"([^=]+)=([0-9]{1,15})(?:/([a-z]+))?")
_REFILL: Final = re.compile(r"([0-9]{1,15})/([a-z]+)(?:@([0-9]{1,2}))?")
_LIMIT_FORM: Final = "NAME=LIMIT/WINDOW[,burst=N][,per=owner][,shadow]"
_QUOTA_FORM: Final = "NAME=AMOUNT[/PERIOD][,per=owner][,refill=N/EVERY][,shadow]"

_RULES: Final = (
    click.option("--limit", "limits", multiple=True, metavar=_LIMIT_FORM, help="A limit; repeatable."),
    click.option("--quota", "quotas", multiple=True, metavar=_QUOTA_FORM, help="A quota; repeatable."),
)
_SHADOW: Final = (
    click.option("--shadow-cidr", multiple=True, help="Count what a network restriction would refuse; repeatable."),
    click.option("--shadow-origin", multiple=True, help="Count what an origin restriction would refuse; repeatable."),
    click.option(
        "--shadow-endpoint",
        multiple=True,
        metavar="'METHODS PATH'",
        help="Count what an endpoint restriction would refuse; repeatable.",
    ),
)
_CLEAR_RULES: Final = (
    click.option("--clear-limits", is_flag=True, help="Have no limits of its own any more."),
    click.option("--clear-quotas", is_flag=True, help="Have no quotas of its own any more."),
)
_CLEAR_SHADOW: Final = (
    click.option("--clear-shadow-restrictions", is_flag=True, help="Count nothing in shadow any more."),
)


def allowance_options(*, updating: bool = False, shadow: bool = True) -> Callable[[F], F]:
    """Add the options to a command, which gets what they say as one keyword argument `allowances`: fields of a body."""
    options = [*_RULES, *(_SHADOW if shadow else ())]
    if updating:
        options += [*_CLEAR_RULES, *(_CLEAR_SHADOW if shadow else ())]

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_allowances(**given: Any) -> Any:  # noqa: ANN401 -- what click was given
            names = [name for name in _NAMES if name in given]
            allowances = read_allowances({name: given.pop(name) for name in names})
            return command(**given, allowances=allowances)

        decorated: Any = with_allowances
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


_NAMES: Final = (
    "limits",
    "quotas",
    "shadow_cidr",
    "shadow_origin",
    "shadow_endpoint",
    "clear_limits",
    "clear_quotas",
    "clear_shadow_restrictions",
)


def read_allowances(given: Mapping[str, Any]) -> dict[str, Any]:
    """Build the fields of a body from what the options were given; InputError names the option."""
    body: dict[str, Any] = {}
    if given.get("limits") or given.get("clear_limits"):
        body["limits"] = [read_limit(text) for text in given["limits"]]
    if given.get("quotas") or given.get("clear_quotas"):
        body["quotas"] = [read_quota(text) for text in given["quotas"]]
    shadowed = read_restrictions(
        given.get("shadow_cidr", ()), given.get("shadow_origin", ()), given.get("shadow_endpoint", ())
    )
    if shadowed is not None or given.get("clear_shadow_restrictions"):
        body["shadow_restrictions"] = shadowed
    return body


def read_limit(text: str) -> dict[str, Any]:
    """Read `NAME=LIMIT/WINDOW,…` as a limit of a request; the server judges its numbers."""
    head, *words = text.split(",")
    found = _LIMIT.fullmatch(head)
    if found is None:
        raise _unreadable("--limit", _LIMIT_FORM, text)
    name, limit, length, unit = found.groups()
    rule: dict[str, Any] = {
        "name": name,
        "limit": int(limit),
        "window_seconds": int(length) * _SECONDS[unit or "s"],
    }
    for word in words:
        key, equals, value = word.partition("=")
        if word == "concurrency":
            rule["kind"] = "concurrency"
        elif key == "burst" and value.isdecimal():
            rule["burst"] = int(value)
        elif key == "on-store-error" and equals:
            rule["on_store_error"] = value
        elif not _read_shared(rule, word):
            raise _unreadable("--limit", _LIMIT_FORM, text)
    return rule


def read_quota(text: str) -> dict[str, Any]:
    """Read `NAME=AMOUNT/PERIOD,…` as a quota of a request; without a period it is a prepaid balance."""
    head, *words = text.split(",")
    found = _QUOTA.fullmatch(head)
    if found is None:
        raise _unreadable("--quota", _QUOTA_FORM, text)
    name, amount, period = found.groups()
    rule: dict[str, Any] = {"name": name, "amount": int(amount), "period": period or "none"}
    for word in words:
        refill = _REFILL.fullmatch(word.removeprefix("refill=")) if word.startswith("refill=") else None
        if refill is not None:
            rule |= {"refill_amount": int(refill[1]), "refill_every": refill[2]}
            if refill[3] is not None:
                rule["refill_day"] = int(refill[3])
        elif not _read_shared(rule, word):
            raise _unreadable("--quota", _QUOTA_FORM, text)
    return rule


def limit_text(rule: Mapping[str, Any]) -> str:
    """Write a limit of an answer as the option has it."""
    seconds = rule["window_seconds"]
    length, unit = next((seconds // s, u) for u, s in reversed(_SECONDS.items()) if seconds % s == 0)
    words = [f"{rule['name']}={rule['limit']}/{length}{unit}"]
    if rule.get("burst") is not None:
        words.append(f"burst={rule['burst']}")
    if rule.get("kind", "rate") != "rate":
        words.append(rule["kind"])
    words += _shared_words(rule)
    if rule.get("on_store_error", "deny") != "deny":
        words.append(f"on-store-error={rule['on_store_error']}")
    return ",".join(words)


def quota_text(rule: Mapping[str, Any]) -> str:
    """Write a quota of an answer as the option has it."""
    period = rule.get("period", "month")
    words = [f"{rule['name']}={rule['amount']}" + ("" if period == "none" else f"/{period}")]
    if rule.get("refill_amount") is not None:
        day = "" if rule.get("refill_day") is None else f"@{rule['refill_day']}"
        words.append(f"refill={rule['refill_amount']}/{rule.get('refill_every')}{day}")
    return ",".join((*words, *_shared_words(rule)))


def readable(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer with its limits and quotas written as the options have them; empty ones are left out."""
    shown = dict(answer)
    for name, write in (("limits", limit_text), ("quotas", quota_text)):
        rules = answer.get(name)
        if rules is not None:
            shown[name] = " ".join(cell(write(rule)) for rule in rules) or None
    return shown


def _read_shared(rule: dict[str, Any], word: str) -> bool:
    key, equals, value = word.partition("=")
    if word == "shadow":
        rule["mode"] = "shadow"
    elif word == "manual":
        rule["auto"] = False
    elif key == "per" and equals:
        rule["per"] = value
    else:
        return False
    return True


def _shared_words(rule: Mapping[str, Any]) -> list[str]:
    words = [] if rule.get("per", "key") == "key" else [f"per={rule['per']}"]
    if rule.get("mode", "enforce") != "enforce":
        words.append(rule["mode"])
    if not rule.get("auto", True):
        words.append("manual")
    return words


def _unreadable(option: str, form: str, text: str) -> InputError:
    return InputError(f"expected {form}, found {text!r}", field=option)
