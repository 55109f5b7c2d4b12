"""Operations on the key that signs the audit log: rotate and retire.

    rotate     a new key; the next checkpoint is signed by it and by the one before, and hands over
    retire     the private halves of the keys before are overwritten

Verifiers that hold the key before follow the handover; see `keyturn.audit.signers`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.audit import signing
from keyturn.audit.tree import read_checkpoint
from keyturn.errors import ConflictError, IntegrityError, UnavailableError
from keyturn.storage.transaction import ChangeKind
from keyturn.wire.actions import Action
from keyturn.wire.audit import AuditPublicKey

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.audit.leaf import Detail
    from keyturn.storage.keyring import Keyring

KEY: Final = Resource("audit/key")
LOOK_EVERY_SECONDS: Final = 0.1
HANDOVER_WAIT_SECONDS: Final = 5.0


class AuditKeyService:
    """What can be done with the signing keys of the caller's workspace."""

    def __init__(self, door: Door, keyring: Keyring, *, wait_seconds: float = HANDOVER_WAIT_SECONDS) -> None:
        """Need the door and the keyring; `wait_seconds` is how long a rotation waits for its handover."""
        self._door = door
        self._keyring = keyring
        self._wait_seconds = wait_seconds

    async def rotate(self, credentials: Credentials, *, idempotency: str | None = None) -> AuditPublicKey:
        """Make a new signing key and wait, within a bound, until it has taken over.

        The answer shows the new `verifier_key` once it has; before, still that of the key which hands over.
        Raises ConflictError while nothing was signed yet: there is nothing to hand over.
        """
        attempt = Attempt.of(credentials, Action.AUDIT_KEY_ROTATE, idempotency)

        def work(op: Operation) -> AuditPublicKey:
            op.authorise(Action.AUDIT_KEY_ROTATE, KEY)
            replay = Replay(AuditPublicKey, lambda made: str(made.keys[0].number), lambda _: self._shown(op))
            return idempotent(op, attempt, replay, lambda: self._rotate(op))

        await self._door.write(credentials, work, attempt=attempt)
        waited = 0.0
        while not await self._door.read(credentials, self._is_handed_over) and waited < self._wait_seconds:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            waited += LOOK_EVERY_SECONDS
        return await self._door.read(credentials, self._shown)

    async def retire(self, credentials: Credentials) -> AuditPublicKey:
        """Destroy the private halves of the keys that signed before; harmless when there are none.

        Raises ConflictError while the newest key has not taken over yet.
        """

        def work(op: Operation) -> AuditPublicKey:
            op.authorise(Action.AUDIT_KEY_RETIRE, KEY)
            if not self._is_handed_over(op):
                raise ConflictError(
                    "the newest signing key has not signed a checkpoint yet, and needs the one before to",
                    code="audit_key_in_use",
                    hint="try again in a second",
                )
            retired = self._keyring.erase(op.connection, op.workspace, signing.PURPOSE, signing.PATH)
            if retired:
                _record(op, Action.AUDIT_KEY_RETIRE, keys=list(retired))
            else:
                op.unchanged()
            return self._shown(op)

        return (await self._door.write(credentials, work)).value

    def _rotate(self, op: Operation) -> AuditPublicKey:
        # A key that was shown but has signed nothing vouches for no successor, and may be pinned.
        if read_checkpoint(op.connection, op.workspace) is None:
            raise ConflictError(
                "no audit checkpoint was signed yet, so there is no key to replace",
                code="audit_not_built",
                hint="try again in a second",
            )
        made = self._keyring.create(op.connection, op.workspace, signing.PURPOSE, signing.PATH, op.now)
        _record(op, Action.AUDIT_KEY_ROTATE, key=made.number)
        return self._shown(op)

    def _is_handed_over(self, op: Operation) -> bool:
        return signing.is_handed_over(op.connection, self._keyring, op.workspace)

    def _presented(self, op: Operation) -> bytes | None:
        try:
            return signing.presented_key(op.connection, self._keyring, op.workspace)
        except IntegrityError as error:
            raise UnavailableError(error.message, code="audit_tree_broken", hint=error.hint) from error

    def _shown(self, op: Operation) -> AuditPublicKey:
        return signing.public_keys(op.connection, op.workspace, self._presented(op) or b"")


def _record(op: Operation, action: Action, **detail: Detail) -> None:
    op.record(action, KEY.name, kind=ChangeKind.AUDIT, entity="", detail=detail)
