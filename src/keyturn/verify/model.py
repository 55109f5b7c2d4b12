"""The values that verify works on.

They are msgspec Structs without garbage-collector tracking: a replica holds a million of them, none is part of
a cycle, and the collector would otherwise walk all of them again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import msgspec
from msgspec.structs import force_setattr

from keyturn.verify.spending import Reservation
from keyturn.verify.standing import Kept, Standing
from keyturn.verify.terms import Terms
from keyturn.wire.verification import Code, LimitReport, LimitUse, QuotaReport, QuotaUse

if TYPE_CHECKING:
    from keyturn.verify.standing import KeyspacePolicy
    from keyturn.verify.terms import Own

KEPT_MAX: Final = 8192
"""Of how many versions of a workspace it is kept what has been worked out for them."""

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


class Told(msgspec.Struct, array_like=True, frozen=True):
    """What a key's record says that is only told, never decided by (but for the owner)."""

    owner: str
    name: str | None
    metadata: dict[str, str] | None


class VersionPolicy(msgspec.Struct, frozen=True, gc=False):
    """One secret version together with what its key says; keys with several versions repeat references only.

    One flat object is smaller than a key and a version for the usual key with one version, and saves a step on
    the hot path; so is `packed` smaller than what it holds: the digest, then `Told` as MessagePack.  A change of the
    key makes new ones; only what is `kept` of one ever changes.
    """

    id: str
    key_id: str
    standing: Standing
    packed: bytes
    not_before: float | None
    expires_at: float | None
    valid_until: float | None
    kept: Kept | None = None

    @property
    def keyspace(self) -> KeyspacePolicy:
        """The keyspace of the key."""
        return self.standing.keyspace

    @property
    def own(self) -> Own:
        """What the key says itself."""
        return self.standing.own

    @property
    def digest(self) -> bytes:
        """What is kept of the secret."""
        return self.packed[: self.standing.digest_bytes]

    @property
    def terms(self) -> Terms:
        """What holds for the key now, from its keyspace, plan, owner and itself."""
        return self.standing.own.terms(self)

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

    @property
    def owner(self) -> str:
        """Who the key belongs to."""
        return self.told().owner if self.kept is None else self.kept.owner

    @property
    def name(self) -> str | None:
        """What the key is called."""
        return self.told().name

    def told(self) -> Told:
        """Return a new copy of owner, name and metadata."""
        return _read_told(self.packed[self.standing.digest_bytes :])

    def keep(self, terms: Terms) -> Kept:
        """Return what is kept of it under these terms, beginning anew when that was under others.

        A workspace keeps it of KEPT_MAX versions; then all is let go of.
        """
        kept = self.kept
        if kept is not None and kept.terms is terms:
            return kept
        if kept is None:
            users = self.standing.keyspace.book.kept
            if len(users) >= KEPT_MAX:
                for version in users:
                    force_setattr(version, "kept", None)
                users.clear()
            users.append(self)
        kept = Kept(self.owner, terms)
        force_setattr(self, "kept", kept)
        return kept

    def metadata(self) -> dict[str, str] | None:
        """Return a new copy of the key's metadata."""
        return self.told().metadata

    def __repr__(self) -> str:
        return f"VersionPolicy({self.id!r}, key_id={self.key_id!r})"

    def __rich_repr__(self) -> Any:  # noqa: ANN401 -- the signature msgspec gives it
        yield "id", self.id
        yield "key_id", self.key_id


_read_told: Final = msgspec.msgpack.Decoder(Told).decode


class Allowed(msgspec.Struct, frozen=True, gc=False):
    """The key is admitted as this version, under these terms."""

    version: VersionPolicy
    terms: Terms

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


class Admission(msgspec.Struct, frozen=True, gc=False):
    """The verdict after charging, and how limits and quotas stand.

    `shadow` names what would have refused.  `slots` are held until they are given back.  `store_failed`: the counters
    of limits could not be asked, and the rules decided.
    """

    verdict: Allowed | Denied
    limits: tuple[LimitReport, ...] = ()
    quotas: tuple[QuotaReport, ...] = ()
    retry_after_seconds: float = 0.0
    slots: tuple[str, ...] = ()
    shadow: tuple[str, ...] = ()
    store_failed: bool = False
    reservation: Reservation | None = None


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
