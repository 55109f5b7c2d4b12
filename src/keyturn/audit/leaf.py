"""An audit leaf: one thing that was done, or refused, as exact bytes.

    {"action":"key.revoke","actor":{"id":"prn_…","kind":"user","name":"…","token":"tok_…"},
     "at":"2026-01-02T03:04:05.678Z","detail":{…},"id":"evt_…","outcome":"allowed","request":{"id":"req_…","ip":"…"},"resource":"key/orders/key_…",
     "salt":"<22 characters>","v":1,"workspace":"wsp_…"}

Canonical form: UTF-8, keys sorted, no insignificant space, as JCS (RFC 8785) restricted to strings, booleans,
integers, lists and objects (no floats).  The salt is 128 random bits in base62, which keeps low-entropy content from
being guessed from its hash after an erasure.
"""

from __future__ import annotations

from typing import Final

import msgspec

from keyturn.audit.model import SYSTEM, Actor, Detail, Outcome
from keyturn.errors import BrokenInvariantError
from keyturn.kernel.clock import rfc3339
from keyturn.kernel.ids import RANDOM_LENGTH, new_id
from keyturn.kernel.secret import random_base62
from keyturn.storage.transaction import LeafRow

__all__ = ["FORMAT", "SYSTEM", "Actor", "Detail", "Leaf", "Outcome"]

FORMAT = 1
SALT_LENGTH = 22
DRAWN = SALT_LENGTH + RANDOM_LENGTH
"""How many random characters a leaf takes: its salt, and the end of its id."""


class _Actor(msgspec.Struct, frozen=True, gc=False):
    id: str
    kind: str
    name: str
    token: str | msgspec.UnsetType


class _Request(msgspec.Struct, frozen=True, gc=False):
    id: str | None
    ip: str | None


class _Body(msgspec.Struct, frozen=True, gc=False):
    action: str
    actor: _Actor
    at: str
    detail: dict[str, Detail]
    id: str
    outcome: Outcome
    request: _Request
    resource: str
    salt: str
    v: int
    workspace: str


_encode: Final = msgspec.json.Encoder(order="sorted").encode


class Leaf(msgspec.Struct, frozen=True):
    """One leaf before it is encoded."""

    workspace: str
    action: str
    outcome: Outcome
    actor: Actor
    resource: str
    at: float
    detail: dict[str, Detail] = {}
    request_id: str | None = None
    ip: str | None = None

    def row(self, drawn: str | None = None) -> LeafRow:
        """Encode with a fresh id and salt; raises BrokenInvariantError for a detail that is not canonical JSON.

        `drawn` are DRAWN random base62 characters of its own, where those of many leaves were drawn at once.
        """
        if drawn is None:
            drawn = random_base62(DRAWN)
        leaf_id = new_id("evt", self.at, drawn[SALT_LENGTH:])
        # The rest is text by its type; what a caller made up is not.
        _require_canonical(self.detail)
        actor, action = self.actor, str(self.action)
        body = _Body(
            action=action,
            actor=_Actor(actor.id, actor.kind, actor.name, msgspec.UNSET if actor.token is None else actor.token),
            at=rfc3339(self.at),
            detail=self.detail,
            id=leaf_id,
            outcome=self.outcome,
            request=_Request(self.request_id, self.ip),
            resource=self.resource,
            salt=drawn[:SALT_LENGTH],
            v=FORMAT,
            workspace=self.workspace,
        )
        return LeafRow(leaf_id, self.at, action, self.outcome, actor.id, self.resource, _encode(body))


def _require_canonical(value: object) -> None:
    if isinstance(value, dict):
        for item in value.values():
            if type(item) is not str and type(item) is not int:
                _require_canonical(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_canonical(item)
    elif not isinstance(value, str | int | None):
        message = f"an audit detail of type {type(value).__name__} has no canonical form"
        raise BrokenInvariantError(message)
