"""Sharing a secret: what it holds now, wrapped for somebody who need not have any right here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from keyturn.vault.paths import parse_path
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.vault.ports import Approvals
    from keyturn.vault.wrapping import WrapService
    from keyturn.wire.secrets import SecretValue
    from keyturn.wire.wraps import ShareSecret, WrapCreated


class SecretValues(Protocol):
    """Lets values out, having put it on record; implemented by `reading`."""

    async def read(self, credentials: Credentials, path: str, *, version: int | None = None) -> SecretValue:
        """Return what the secret holds."""
        ...


class SharingService:
    """Wraps what secrets hold."""

    def __init__(self, door: Door, secrets: SecretValues, wraps: WrapService, approvals: Approvals) -> None:
        """Need the door, the reader of secrets, wraps, and what is asked of guarded paths."""
        self._door = door
        self._secrets = secrets
        self._wraps = wraps
        self._approvals = approvals

    async def share(self, credentials: Credentials, path: str, request: ShareSecret) -> WrapCreated:
        """Wrap what a secret holds.

        Needs `secret.share` besides the right to the value, and an approval where a guard holds either back.
        """
        place = parse_path(path)

        def authorise(op: Operation) -> None:
            op.authorise(Action.SECRET_SHARE, place.resource, kind="secret", name=path)
            self._approvals.require(op, Action.SECRET_SHARE, place)

        # Asked before the value is read, and again in the unit that wraps it: rights may have gone meanwhile.
        await self._door.read(credentials, authorise)
        value = await self._secrets.read(credentials, path, version=request.version)
        data = {"path": value.path, "version": value.version, "fields": value.fields}

        def work(op: Operation) -> WrapCreated:
            authorise(op)
            return self._wraps.wrap_within(
                op,
                f"api/v1/secret-share/{place.text}",
                data,
                request.ttl_seconds,
                action=Action.SECRET_SHARE,
                resource=place.resource.name,
            )

        return (await self._door.write(credentials, work)).value
