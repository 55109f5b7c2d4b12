"""A small world to verify in: one workspace, its keyspaces, and keys minted at run time."""

from __future__ import annotations

from typing import Any

from keyturn.kernel.ids import new_id, new_version_id
from keyturn.kernel.tokenformat import digest, mint, sha256
from keyturn.verify.model import Allowed, Denied, Request
from keyturn.verify.replica import Replica
from keyturn.verify.rules import verify
from keyturn.wire.policy import KeyRecord, KeyspaceRecord, PepperRecord, Restrictions, VersionRecord
from keyturn.wire.verification import Code

NOW = 1_700_000_000.0
PEPPER = bytes(range(32))
NEWER_PEPPER = bytes(range(32, 64))


def keyspace_record(**changes: Any) -> KeyspaceRecord:
    """Return a keyspace of workspace `ws_a` that admits."""
    fields: dict[str, Any] = {
        "id": "ks_a",
        "workspace": "ws_a",
        "name": "orders",
        "prefix": "acme",
        "tag": "live",
        "environment": "production",
        "state": "active",
        "stale_after_seconds": 60.0,
        "peppers": (PepperRecord(1, PEPPER), PepperRecord(2, NEWER_PEPPER)),
    }
    return KeyspaceRecord(**{**fields, **changes})


class Issued:
    """A key minted at run time, with the record a replica is given."""

    def __init__(self, *, version: dict[str, Any] | None = None, **changes: Any) -> None:
        """Mint a key with one version; `version` and `changes` alter the records."""
        minted = mint("acme", "live")
        self.presented = minted.key.reveal()
        fields: dict[str, Any] = {
            "id": minted.version_id,
            "number": 1,
            "state": "current",
            "digest_kind": "blake2b",
            "digest": digest(PEPPER, sha256(self.presented)),
            "pepper": 1,
        }
        self.version = VersionRecord(**{**fields, **(version or {})})
        key: dict[str, Any] = {
            "id": new_id("key", NOW),
            "keyspace": "ks_a",
            "owner": "team-orders",
            "environment": "production",
            "state": "active",
            "versions": (self.version,),
        }
        self.record = KeyRecord(**{**key, **changes})

    def request(self, **fields: Any) -> Request:
        """Return a request that presents this key."""
        return Request(self.presented, **fields)


def imported(presented: str, *, kind: str = "blake2b", lookup: str | None = None, **changes: Any) -> KeyRecord:
    """Return the record of a key of foreign shape."""
    known = digest(PEPPER, sha256(presented)) if kind == "blake2b" else b"$slow$" + sha256(presented)
    version = VersionRecord(
        id=new_version_id(),
        number=1,
        state="current",
        digest_kind=kind,
        digest=known,
        pepper=1 if kind == "blake2b" else 0,
        foreign=True,
        lookup=lookup,
    )
    return Issued(versions=(version,), **changes).record


def replica_of(*keys: KeyRecord, keyspaces: tuple[KeyspaceRecord, ...] | None = None) -> Replica:
    """Return a replica loaded with these keys."""
    replica = Replica()
    replica.replace_all(keyspaces if keyspaces is not None else (keyspace_record(),), keys)
    return replica


def decided(
    issued: Issued, *, keyspace: KeyspaceRecord | None = None, now: float = NOW, **fields: Any
) -> Allowed | Denied:
    """Load one key and decide about one request that presents it."""
    replica = replica_of(issued.record, keyspaces=(keyspace or keyspace_record(),))
    return verify(replica, issued.request(**fields), now)


def code_of(issued: Issued, **fields: Any) -> Code:
    """As `decided`, only the code."""
    return decided(issued, **fields).code


def restricted(**lists: Any) -> Restrictions:
    """Return restrictions with these lists."""
    return Restrictions(**lists)
