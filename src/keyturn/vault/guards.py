"""Guards and approvals as values: what a guard covers, who may decide, and how a request stands.

    pattern                    covers
    production/payments/*      production/payments/stripe, production/payments/eu/stripe
    production/*/stripe        production/payments/stripe
    *                          every path of the workspace

    pending  --approve--> approved       --deny--> denied
    approved --deny--> denied            --valid_until passes--> expired
    pending  --expires_at passes--> expired

Nobody of the requester's principal decides, whatever token or login it uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from keyturn.errors import InputError
from keyturn.kernel.match import matches
from keyturn.vault.paths import Path, parse_path
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keyturn.wire.approvals import ApprovalState

GUARDABLE: Final = frozenset(
    action for action in Action if action.startswith("secret.") and action != Action.SECRET_LIST
)
"""What a guard can hold back; names are not guarded."""

PENDING_SECONDS: Final = 86_400.0
"""How long a request waits for a decision."""

PENDING_MAX: Final = 100
"""Requests of one principal that wait at a time."""

GUARDS_MAX: Final = 200
"""Guards of one workspace."""

Decision = Literal["pending", "approved", "denied"]

_STAND_IN: Final = "0"
_ENCODED: Final = re.compile(r"=([0-9A-F]{2})")


@dataclass(frozen=True, slots=True)
class Guard:
    """A row of `guard`; `resource` is the pattern as grants would write it."""

    id: str
    workspace: str
    pattern: str
    resource: str
    actions: tuple[str, ...]
    description: str
    valid_seconds: int
    created_at: float
    created_by: str
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class Approval:
    """A row of `approval`; `requester` is a consumer: the principal, and the subject it logged in as."""

    id: str
    workspace: str
    requester: str
    action: str
    resource: str
    reason: str
    state: Decision
    created_at: float
    expires_at: float
    decided_by: str | None
    decided_at: float | None
    decision_reason: str
    valid_until: float | None
    uses: int
    revision: int

    @property
    def principal(self) -> str:
        """The requester's principal."""
        return self.requester.partition("/")[0]

    @property
    def subject(self) -> str:
        """Whom the requester had logged in as; empty for a management token."""
        return self.requester.partition("/")[2]

    @property
    def environment(self) -> str | None:
        """The environment of the secret it is about."""
        return self.resource.split("/")[1] if self.resource.startswith("secret/") else None

    @property
    def path(self) -> str | None:
        """The path of the secret it is about."""
        kind, _, rest = self.resource.partition("/")
        return _ENCODED.sub(lambda found: chr(int(found[1], 16)), rest) if kind == "secret" else None

    def standing(self, now: float) -> ApprovalState:
        """Return its state now, time considered."""
        end = {"pending": self.expires_at, "approved": self.valid_until}.get(self.state)
        return "expired" if end is not None and now >= end else self.state


@lru_cache(maxsize=1024)
def pattern_resource(pattern: str) -> str:
    """Return the resource pattern of a path pattern; raises InputError for what can match no path."""
    segments = pattern.split("/")
    if segments == ["*"]:
        return "secret/*"
    if len(segments) == 1:
        raise InputError(
            "the pattern has an environment and nothing below it",
            field="pattern",
            hint=f"{pattern[:64]}/* covers every path of an environment",
        )
    concrete = parse_path("/".join(_STAND_IN if segment == "*" else segment for segment in segments))
    encoded = concrete.resource.name.split("/")[1:]
    return "/".join(["secret", *("*" if was == "*" else now for was, now in zip(segments, encoded, strict=True))])


def check_actions(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Return the actions of a new guard in order, each once; raises InputError for one that no guard holds back."""
    wanted = set(actions)
    foreign = sorted(wanted - GUARDABLE)
    if foreign:
        raise InputError(
            f"a guard cannot hold back {foreign[0]}",
            field="actions",
            hint=f"expected some of {', '.join(sorted(GUARDABLE))}",
        )
    return tuple(sorted(wanted))


def covering(guards: Iterable[Guard], action: Action, path: Path) -> list[Guard]:
    """Return the guards that hold the action on the path back."""
    name = path.resource.name
    return [guard for guard in guards if action in guard.actions and matches(guard.resource, name)]


def valid_seconds(guards: Iterable[Guard]) -> int | None:
    """Return how long an approval under all of these guards holds: the shortest; None without a guard."""
    return min((guard.valid_seconds for guard in guards), default=None)
