"""Keys, keyspaces and versions for tests of the rules."""

from __future__ import annotations

from typing import Any

from keyturn.keys.model import ACTIVE, CURRENT, Key, Keyspace, Version

NOW = 1_767_225_600.0


def key(**given: Any) -> Key:
    """Return a key."""
    values: dict[str, Any] = {
        "id": "key_0VPfh4Qa7mKx2LwZ9Yb3Rt",
        "workspace": "wsp_1",
        "keyspace": "ksp_1",
        "keyspace_name": "orders",
        "environment": "production",
        "name": None,
        "owner": "billing",
        "purpose": "tests",
        "state": ACTIVE,
        "scopes": (),
        "restrictions": None,
        "metadata": {},
        "tags": (),
        "not_before": None,
        "expires_at": None,
        "created_at": NOW,
        "created_by": "prn_1",
        "updated_at": NOW,
        "disabled_at": None,
        "revoked_at": None,
        "revoke_reason": None,
        "revision": 1,
    }
    return Key(**(values | given))


def version(**given: Any) -> Version:
    """Return a version."""
    values: dict[str, Any] = {
        "id": "v1",
        "key": "key_0VPfh4Qa7mKx2LwZ9Yb3Rt",
        "keyspace": "ksp_1",
        "number": 1,
        "state": CURRENT,
        "digest_kind": "blake2b",
        "digest": bytes(32),
        "pepper": 1,
        "foreign": False,
        "lookup": None,
        "created_at": NOW,
        "created_by": "prn_1",
        "valid_until": None,
        "retired_at": None,
    }
    return Version(**(values | given))


def keyspace(**given: Any) -> Keyspace:
    """Return a keyspace."""
    values: dict[str, Any] = {
        "id": "ksp_1",
        "workspace": "wsp_1",
        "name": "orders",
        "prefix": "acme",
        "tag": "live",
        "environment": "production",
        "state": ACTIVE,
        "system": False,
        "stale_after_seconds": 60.0,
        "stale_after_was": None,
        "stale_after_changed_at": None,
        "restrictions": None,
        "accepts_foreign": False,
        "description": "",
        "created_at": NOW,
        "created_by": "prn_1",
        "revision": 1,
    }
    return Keyspace(**(values | given))
