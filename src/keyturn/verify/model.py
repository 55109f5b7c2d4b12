"""The values that verify works on.

They are msgspec Structs without garbage-collector tracking: a replica holds a million of them, none is part of
a cycle, and the collector would otherwise walk all of them again and again.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Literal

import msgspec

from keyturn.verify.restrictions import Checker
from keyturn.verify.terms import Book, Own, Terms
from keyturn.wire.policy import LimitRule, QuotaRule
from keyturn.wire.verification import Code, LimitUse, QuotaUse

CheckVerdict = Literal["pass", "fail", "skipped"]
CheckSource = Literal["request", "version", "key", "owner", "plan", "keyspace"]


class Request(msgspec.Struct, frozen=True, gc=False):
    """A presented key and what is known about the call it came with.

    A field that is None was not told; a restriction that needs it denies.  `ip` is the client's address as the
    caller states it, never the peer of a connection.  `origin` is an Origin or a Referer.  `path` may carry a
    query string, which is ignored.  `endpoint`, `user_agent` and `country` (two letters, ISO 3166-1) are for usage
    only.  `keyspace` narrows the answer to one keyspace, by name or id.  `cost` is charged to every limit and quota
    that is charged by itself; `limits` and `quotas` say otherwise by name, and may name further ones.
    """

    presented: str
    scopes: str | None = None
    ip: str | None = None
    origin: str | None = None
    method: str | None = None
    path: str | None = None
    user_agent: str | None = None
    endpoint: str | None = None
    keyspace: str | None = None
    country: str | None = None
    cost: int = 1
    limits: tuple[LimitUse, ...] = ()
    quotas: tuple[QuotaUse, ...] = ()

    def __repr__(self) -> str:
        return "Request([redacted])"

    def __rich_repr__(self) -> Any:  # noqa: ANN401 -- the signature msgspec gives it
        yield "[redacted]"


class KeyspacePolicy:
    """What a replica knows of a keyspace; one object per keyspace, changed in place, shared by its keys.

    `book` holds the plans and owners of its workspace.  `stamp` is another object after each change of the terms of
    its keys; see `keyturn.verify.terms`.
    """

    __slots__ = (
        "accepts_foreign",
        "book",
        "checker",
        "default_plan",
        "enabled",
        "environment",
        "id",
        "limits",
        "name",
        "peppers",
        "prefix",
        "quotas",
        "shadow",
        "stale_after_seconds",
        "stamp",
        "system",
        "tag",
        "workspace",
    )

    def __init__(self, keyspace_id: str) -> None:
        """Begin as a keyspace that admits nothing."""
        self.id = keyspace_id
        self.workspace = ""
        self.name = ""
        self.prefix = ""
        self.tag = ""
        self.environment = ""
        self.enabled = False
        self.system = True
        self.accepts_foreign = False
        self.stale_after_seconds = 0.0
        self.peppers: dict[int, bytes] = {}
        self.checker: Checker | None = None
        self.shadow: Checker | None = None
        self.default_plan: str | None = None
        self.limits: tuple[LimitRule, ...] = ()
        self.quotas: tuple[QuotaRule, ...] = ()
        self.book = Book()
        self.stamp = object()

    def __repr__(self) -> str:
        return f"KeyspacePolicy({self.id!r})"


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What many versions have in common, held once.

    `blocked` is the code that the states alone lead to, or None when they admit.
    """

    version_state: str
    key_state: str
    blocked: Code | None
    number: int
    pepper: int
    kind: str
    foreign: bool
    environment: str


class VersionPolicy(msgspec.Struct, frozen=True, gc=False):
    """One secret version together with what its key says; keys with several versions repeat references only.

    One flat object is smaller than a key and a version for the usual key with one version, and saves a step on
    the hot path.  A change of the key makes new ones.
    """

    id: str
    key_id: str
    keyspace: KeyspacePolicy
    digest: bytes
    standing: Standing
    owner: str
    name: str | None
    own: Own
    not_before: float | None
    expires_at: float | None
    valid_until: float | None
    metadata_json: str | None

    @property
    def terms(self) -> Terms:
        """What holds for the key now, from its keyspace, plan, owner and itself."""
        return self.own.terms(self.keyspace, self.owner)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The granted scopes, as written: its own, then those of its plan."""
        return self.terms.grants.names

    @property
    def environment(self) -> str:
        """The environment of the key."""
        return self.standing.environment

    @property
    def number(self) -> int:
        """The version's number within its key."""
        return self.standing.number

    @property
    def slow(self) -> bool:
        """Whether the secret can only be proven by a slow foreign digest, outside this package."""
        return self.standing.kind != "blake2b"

    def metadata(self) -> dict[str, str] | None:
        """Return a new copy of the key's metadata."""
        if self.metadata_json is None:
            return None
        metadata: dict[str, str] = json.loads(self.metadata_json)
        return metadata

    def __repr__(self) -> str:
        return f"VersionPolicy({self.id!r}, key_id={self.key_id!r})"

    def __rich_repr__(self) -> Any:  # noqa: ANN401 -- the signature msgspec gives it
        yield "id", self.id
        yield "key_id", self.key_id


class Allowed(msgspec.Struct, frozen=True, gc=False):
    """The key is admitted as this version."""

    version: VersionPolicy

    code: ClassVar[Code] = Code.VALID
    check: ClassVar[str] = ""


class Denied(msgspec.Struct, frozen=True, gc=False):
    """The key is refused; falsy.

    `version` is set only when the secret was proven, so that whoever holds a Denied without it has nothing to
    reveal.  `check` names the check that failed, for logs and metrics.
    """

    code: Code
    check: str
    version: VersionPolicy | None = None

    def __bool__(self) -> bool:
        return False


class Check(msgspec.Struct, frozen=True, gc=False):
    """One line of an explanation: what was checked, how it went and who set it."""

    name: str
    verdict: CheckVerdict
    source: CheckSource
    detail: str | None = None


NOT_FOUND = Denied(Code.NOT_FOUND, "secret")
"""The one answer before the secret is proven."""

UNAVAILABLE = Denied(Code.UNAVAILABLE, "freshness")
"""The answer of a caller that is not fresh and cannot read through either."""
