"""Unkey's words and ours, both ways; pure.  What cannot be said in ours raises InputError naming its field."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from keyturn.compat.unkey import wire
from keyturn.errors import InputError
from keyturn.kernel.clock import parse_rfc3339
from keyturn.wire.rules import LimitInput, QuotaInput
from keyturn.wire.verification import Code, LimitUse, QuotaUse, VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.wire.keys import KeyInfo, VersionInfo
    from keyturn.wire.policy import LimitRule, QuotaRule
    from keyturn.wire.verification import LimitReport, VerifyResponse

CREDITS: Final = "credits"
"""The quota that holds a key's credits."""
JSON_NAMES: Final = "unkey-json"
"""The metadata entry that names those whose value is JSON rather than text."""
NO_OWNER: Final = "unassigned"
PURPOSE: Final = "issued through the Unkey-compatible API"
OVERLAP_SECONDS_MAX: Final = 315_360_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RULE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9]+")
_INTERVALS: Final = {"daily": "day", "monthly": "month"}
_EVERY: Final = {"day": "daily", "month": "monthly"}
_CODES: Final = {
    Code.VALID: "VALID",
    Code.NOT_FOUND: "NOT_FOUND",
    Code.FORBIDDEN: "FORBIDDEN",
    Code.INSUFFICIENT_PERMISSIONS: "INSUFFICIENT_PERMISSIONS",
    Code.USAGE_EXCEEDED: "USAGE_EXCEEDED",
    Code.RATE_LIMITED: "RATE_LIMITED",
    Code.DISABLED: "DISABLED",
    Code.EXPIRED: "EXPIRED",
    # A key that was deleted is not found there, and one that is not valid yet is not known there.
    Code.REVOKED: "NOT_FOUND",
    Code.NOT_YET_VALID: "DISABLED",
}


# --- from theirs -------------------------------------------------------------------------------------------------


def keyspace_name(text: str) -> str:
    """Return the name of the keyspace for an API of that name: lower case, words joined by `-`."""
    name = _NOT_A_NAME.sub("-", text.lower()).strip("-")[:64]
    if not name:
        raise InputError("name: expected letters or digits", field="name")
    return name


def keyspace_prefix(name: str) -> str:
    """Return the prefix of the keys of a new keyspace: the letters and digits of its name, at least two."""
    letters = re.sub(r"[^a-z0-9]", "", name).lstrip("0123456789")[:16]
    return letters if len(letters) >= 2 else f"{letters}key"[:16]


def moment(millis: int | None) -> datetime | None:
    """Return a time."""
    return None if millis is None else _EPOCH + timedelta(milliseconds=millis)


def metadata(given: Mapping[str, Any] | None) -> dict[str, str]:
    """Return metadata: text as it is, all else as JSON, whose names are kept so that it comes back as it was."""
    found: dict[str, str] = {}
    encoded = []
    for name, value in (given or {}).items():
        if name == JSON_NAMES:
            raise InputError(f"meta.{JSON_NAMES} is reserved", field=f"meta.{JSON_NAMES}", hint="use another name")
        if isinstance(value, str):
            found[name] = value
        else:
            found[name] = json.dumps(value, separators=(",", ":"))
            encoded.append(name)
    if encoded:
        found[JSON_NAMES] = json.dumps(encoded, separators=(",", ":"))
    return found


def credits_rule(given: wire.Credits | wire.UpdateCreditsPart | None, held: QuotaRule | None) -> QuotaInput | None:
    """Return the quota of a key's credits, None when they are without bound.

    What is left out of an update stays as `held` has it.
    """
    if given is None or given.remaining is None:
        return None
    amount = given.remaining if given.remaining is not UNSET else held.amount if held is not None else None
    if amount is None:
        raise InputError("credits.remaining is needed: the key has no credits yet", field="credits.remaining")
    if given.refill is UNSET:
        return QuotaInput(
            name=CREDITS,
            amount=amount,
            period="none",
            refill_amount=None if held is None else held.refill_amount,
            refill_every=None if held is None else held.refill_every,  # type: ignore[arg-type]
            refill_day=None if held is None else held.refill_day,
        )
    if given.refill is None:
        return QuotaInput(name=CREDITS, amount=amount, period="none")
    refill = given.refill
    if refill.refill_day is not None and refill.interval != "monthly":
        raise InputError("credits.refill.refillDay goes with the interval monthly", field="credits.refill.refillDay")
    return QuotaInput(
        name=CREDITS,
        amount=amount,
        period="none",
        refill_amount=refill.amount,
        refill_every=_INTERVALS[refill.interval],  # type: ignore[arg-type]
        refill_day=(refill.refill_day or 1) if refill.interval == "monthly" else None,
    )


def limit_rules(given: Sequence[wire.Ratelimit] | None) -> tuple[LimitInput, ...]:
    """Return the limits of a key."""
    return tuple(
        LimitInput(
            name=rule_name(one.name, f"ratelimits[{at}].name"),
            limit=one.limit,
            window_seconds=window_seconds(one.duration, f"ratelimits[{at}].duration"),
            auto=one.auto_apply,
        )
        for at, one in enumerate(given or ())
    )


def rule_name(text: str, field: str) -> str:
    """Return the name of a limit; raises InputError unless it can be one here."""
    if not _RULE_NAME.fullmatch(text):
        raise InputError(f"{field}: expected 1-32 of a-z, 0-9, _ and -, beginning with a letter or digit", field=field)
    return text


def window_seconds(millis: int, field: str) -> int:
    """Return a window in whole seconds, as limits have them here."""
    if millis % 1000:
        raise InputError(f"{field}: expected whole seconds, found {millis} ms", field=field)
    return millis // 1000


def verify_request(body: wire.VerifyKey, keyspace: str | None) -> VerifyRequest:
    """Return the verification that is asked for."""
    charged = () if body.credits is None else (QuotaUse(name=CREDITS, cost=body.credits.cost),)
    return VerifyRequest(
        key=body.key, scopes=body.permissions, keyspace=keyspace, limits=limit_uses(body.ratelimits), quotas=charged
    )


def limit_uses(given: Sequence[wire.RatelimitUse] | None) -> tuple[LimitUse, ...]:
    """Return which limits a verification charges, and how much."""
    uses = []
    for at, one in enumerate(given or ()):
        field = f"ratelimits[{at}]"
        if (one.limit is None) != (one.duration is None):
            raise InputError(f"{field}: limit and duration go together", field=field)
        window = None if one.duration is None else window_seconds(one.duration, f"{field}.duration")
        name = rule_name(one.name, f"{field}.name")
        uses.append(LimitUse(name=name, cost=one.cost, limit=one.limit, window_seconds=window))
    return tuple(uses)


def overlap_seconds(millis: int | None) -> int:
    """Return how long a replaced secret stays valid; rounded up, and as long as there is when it has no end."""
    return OVERLAP_SECONDS_MAX if millis is None else min(-(-millis // 1000), OVERLAP_SECONDS_MAX)


# --- to theirs ---------------------------------------------------------------------------------------------------


def millis(text: str | None) -> int | None:
    """Return an RFC 3339 time in milliseconds."""
    return None if text is None else round(parse_rfc3339(text) * 1000)


def meta(held: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Return metadata as it was given; None without any."""
    if not held:
        return None
    encoded = _json_names(held.get(JSON_NAMES))
    found: dict[str, Any] = {}
    for name, value in held.items():
        if name == JSON_NAMES:
            continue
        found[name] = _decoded(value) if name in encoded else value
    return found


def identity(owner: str | None) -> wire.Identity | None:
    """Return who a key belongs to."""
    return None if owner is None or owner == NO_OWNER else wire.Identity(id=owner, external_id=owner)


def shown_credits(rules: Sequence[QuotaRule], remaining: int | None) -> wire.ShownCredits | None:
    """Return what is left of a key's credits, None when they are without bound; `remaining` is the balance's."""
    rule = credits_of(rules)
    if rule is None:
        return None
    refill = None
    if rule.refill_amount is not None and rule.refill_every in _EVERY:
        interval: Any = _EVERY[rule.refill_every]
        refill = wire.Refill(interval=interval, amount=rule.refill_amount, refill_day=rule.refill_day)
    return wire.ShownCredits(remaining=rule.amount if remaining is None else remaining, refill=refill)


def credits_of(rules: Sequence[QuotaRule]) -> QuotaRule | None:
    """Return the quota of a key's credits."""
    return next((rule for rule in rules if rule.name == CREDITS), None)


def shown_limits(rules: Sequence[LimitRule]) -> tuple[wire.ShownRatelimit, ...]:
    """Return the limits of a key."""
    return tuple(
        wire.ShownRatelimit(
            id=one.name, name=one.name, limit=one.limit, duration=one.window_seconds * 1000, auto_apply=one.auto
        )
        for one in rules
    )


def key_data(key: KeyInfo, prefix: str, tag: str, version: VersionInfo | None, remaining: int | None) -> wire.KeyData:
    """Return a key; `version` is its newest, `remaining` what is left of its credits."""
    limits = shown_limits(key.limits)
    return wire.KeyData(
        key_id=key.id,
        start=f"{prefix}_{tag}_{'' if version is None else version.id}",
        enabled=key.state == "active",
        created_at=millis(key.created_at) or 0,
        updated_at=millis(key.updated_at),
        last_used_at=millis(key.last_used_at),
        name=key.name,
        meta=meta(key.metadata),
        expires=millis(key.expires_at),
        permissions=key.scopes or None,
        credits=shown_credits(key.quotas, remaining),
        identity=identity(key.owner),
        ratelimits=limits or None,
    )


def verdict(answer: VerifyResponse, *, asked_permissions: bool, now: float) -> wire.VerifiedKey:
    """Return a verdict in their words; a code that is not known denies."""
    code = _CODES.get(Code(answer.code) if answer.code in set(Code) else Code.FORBIDDEN, "FORBIDDEN")
    valid = answer.valid and code == "VALID"
    if code == "NOT_FOUND" or answer.key_id is None:
        return wire.VerifiedKey(valid=False, code=_CODES[Code.NOT_FOUND])
    charged = tuple(_charged(one, now) for one in answer.limits or ())
    left = next((one.remaining for one in answer.quotas or () if one.name == CREDITS), None)
    return wire.VerifiedKey(
        valid=valid,
        code=code if valid or code != "VALID" else "FORBIDDEN",
        key_id=answer.key_id,
        keyspace_id=answer.keyspace,
        name=answer.name,
        meta=meta(answer.metadata),
        expires=millis(answer.expires_at),
        credits=left,
        enabled=code != "DISABLED",
        permissions=answer.scopes if asked_permissions or code == "INSUFFICIENT_PERMISSIONS" else None,
        identity=identity(answer.owner),
        ratelimits=charged or None,
    )


def _charged(report: LimitReport, now: float) -> wire.ChargedRatelimit:
    return wire.ChargedRatelimit(
        exceeded=report.exceeded,
        id=report.name,
        name=report.name,
        limit=report.limit,
        duration=report.window_seconds * 1000,
        reset=round((now + report.reset_seconds) * 1000),
        remaining=report.remaining,
        auto_apply=True,
    )


def _json_names(text: str | None) -> frozenset[str]:
    found = None if text is None else _decoded(text)
    return frozenset(name for name in found if isinstance(name, str)) if isinstance(found, list) else frozenset()


def _decoded(text: str) -> Any:  # noqa: ANN401 -- any JSON document
    try:
        return json.loads(text)
    except ValueError:
        return text
