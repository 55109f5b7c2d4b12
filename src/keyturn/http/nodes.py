"""Routes of the node registry: who verifies keys, and how far each has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from litestar import get

from keyturn.access.caller import Credentials, Resource
from keyturn.access.door import Door
from keyturn.http.edge import Given
from keyturn.kernel.clock import rfc3339
from keyturn.storage.change_log import read_head
from keyturn.storage.nodes import all_nodes, serving
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from keyturn.access.door import Operation


class NodeInfo(msgspec.Struct, frozen=True):
    """A node that may verify keys.  `behind` is how many changes it has not applied; null when it follows no log."""

    id: str
    kind: str
    label: str
    applied: int
    behind: int | None
    registered_at: str
    confirmed_at: str


class NodeList(msgspec.Struct, frozen=True):
    """Every node the caller may see, oldest first."""

    items: tuple[NodeInfo, ...]
    head: int


@get("/api/v1/nodes", operation_id="listNodes", tags=["nodes"])
async def list_nodes(credentials: Given[Credentials], door: Given[Door]) -> NodeList:
    """List the nodes that verify keys.

    A node that stops without saying so stays listed for a day; `confirmed_at` tells.
    """
    return await door.read(credentials, _list)


def _list(op: Operation) -> NodeList:
    head = read_head(op.connection)
    known = serving(all_nodes(op.connection), op.workspace)
    found = [node for node in known if op.allows(Action.NODE_READ, Resource(f"node/{node.id}"))]
    return NodeList(
        tuple(
            NodeInfo(
                id=node.id,
                kind=node.kind,
                label=node.label,
                applied=node.applied,
                behind=head.seq - node.applied if node.log_id == head.log_id and node.applied >= 0 else None,
                registered_at=rfc3339(node.registered_at),
                confirmed_at=rfc3339(node.confirmed_at),
            )
            for node in found
        ),
        head.seq,
    )


ROUTES = (list_nodes,)
