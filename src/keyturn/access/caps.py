"""Caps: how many issued keys a workspace and each owner in it may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access import rules, store

if TYPE_CHECKING:
    from sqlalchemy import Connection


def check_caps(connection: Connection, workspace: str, owner: str, adding: int) -> None:
    """Raise CapError when `adding` keys for the owner would pass a cap of the workspace or of the owner.

    Counted is what is stored and not revoked; so with several owners, insert each one's keys before the next check.
    Call it inside the unit of work that inserts: the caps stay locked until it ends.
    """
    keys_max, per_owner_max = store.locked_caps(connection, workspace)
    if keys_max is not None:
        held = store.count_keys(connection, workspace)
        rules.require_within_cap(keys_max, held, adding, "the workspace")
    if per_owner_max is not None:
        held = store.count_keys(connection, workspace, owner)
        rules.require_within_cap(per_owner_max, held, adding, f"owner {owner!r}")
