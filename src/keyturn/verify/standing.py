"""What the versions of a replica have in common: keyspaces, and what equal versions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from keyturn.verify.terms import Book

if TYPE_CHECKING:
    from keyturn.verify.demands import Demands
    from keyturn.verify.restrictions import Checker
    from keyturn.verify.terms import Own, Terms
    from keyturn.wire.policy import LimitRule, QuotaRule
    from keyturn.wire.verification import Code


@final
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


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """What many versions have in common, held once: their keyspace, what their keys say, and their states.

    `digest_bytes` is how long their digests are.  `blocked` is the code that the states alone lead to, or None when
    they admit.
    """

    keyspace: KeyspacePolicy
    own: Own
    environment: str
    key_state: str
    version_state: str
    number: int
    pepper: int
    kind: str
    foreign: bool
    digest_bytes: int
    blocked: Code | None


@final
class Kept:
    """What has been worked out for a version that is in use; `demands` are good while its terms are these."""

    __slots__ = ("demands", "owner", "terms")

    def __init__(self, owner: str, terms: Terms) -> None:
        """Begin with nothing worked out."""
        self.owner = owner
        self.terms = terms
        self.demands: Demands | None = None
