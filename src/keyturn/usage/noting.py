"""Noting one use of a version that is no verification, in the unit of work of whoever has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.usage.rules import describe
from keyturn.usage.store import CallerRow, add_callers

if TYPE_CHECKING:
    from keyturn.storage.transaction import Transaction


def note_use(
    transaction: Transaction, workspace: str, key: str, version: str, *, ip: str | None, method: str, path: str
) -> None:
    """Count a use of a version among those of its callers; no bucket of verifications counts it."""
    caller, network, agent, endpoint = describe(ip, None, method, path)
    now = transaction.now
    row = CallerRow(version, caller, key, workspace, now, now, network, agent, endpoint, 1)
    add_callers(transaction.connection, [row], frozenset())
