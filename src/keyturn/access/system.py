"""What the system does by itself for somebody: as an operation of its own, within the rights of who asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.access import store
from keyturn.access.caller import Caller
from keyturn.access.door import Operation
from keyturn.access.principals import active
from keyturn.audit.leaf import SYSTEM

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.storage.transaction import Transaction


def system_operation(transaction: Transaction, workspace: str, *, ip: str | None = None) -> Operation:
    """Return an operation of the system in a workspace; it holds no right, so nothing in it may ask for one.

    Its leaves name the system.  Whoever uses it has decided already that it is to be done.
    """
    caller = Caller(
        workspace=workspace,
        principal=SYSTEM.id,
        kind=SYSTEM.kind,
        name=SYSTEM.name,
        token_id=None,
        token_scopes=(),
        token_resources=(),
        grants=(),
        ip=ip,
    )
    return Operation(transaction.connection, transaction.now, caller, transaction)


def standing_rights(connection: Connection, workspace: str, principal_id: str) -> Caller | None:
    """Return a principal with the rights it holds now, whatever its tokens; None when there is none that is active.

    A grant for certain networks gives nothing here: what is done later is done from nowhere.
    """
    found = active(connection, workspace, principal_id)
    if found is None:
        return None
    return Caller(
        workspace=workspace,
        principal=found.id,
        kind=found.kind,
        name=found.name,
        token_id=None,
        token_scopes=(),
        token_resources=(),
        grants=tuple(store.load_grants(connection, workspace, found.id)),
    )
