"""The operations that change secrets, and those that tell of them; none of them lets a value out.

Each authorises before it looks at anything but the path, so that what is not there answers as what is not to be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import require_revision
from keyturn.errors import not_found
from keyturn.vault import listing, removal, rules, store
from keyturn.vault.answers import secret_info, secret_written
from keyturn.vault.fields import check_fields
from keyturn.vault.paths import parse_path
from keyturn.vault.writing import Writing, existing, new_secret, record, save
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.secrets import SecretWritten

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.storage.keyring import Keyring
    from keyturn.vault.model import Secret
    from keyturn.vault.paths import Path
    from keyturn.vault.ports import Approvals, Fingerprints
    from keyturn.wire.secrets import (
        Describe,
        PatchSecret,
        PromoteSecret,
        PutSecret,
        RollbackSecret,
        SecretInfo,
        SecretNames,
        SecretPage,
        SelectVersions,
    )

T = TypeVar("T")


class VaultService:
    """Writes secrets and lists them."""

    def __init__(self, door: Door, keyring: Keyring, fingerprints: Fingerprints, approvals: Approvals) -> None:
        """Need the door, the keyring that seals, and what is asked or told of each write."""
        self._door = door
        self._approvals = approvals
        self._writing = Writing(keyring, fingerprints, approvals)

    # --- versions ----------------------------------------------------------------------------------------------------

    async def put(
        self,
        credentials: Credentials,
        path: str,
        request: PutSecret,
        *,
        idempotency: str | None = None,
        if_match: int | None = None,
    ) -> SecretWritten:
        """Write a new version, and the secret if there is none.

        `describe` on a secret that exists needs `secret.update` too, and an approval where a guard holds that back.
        A new reference needs the right to read its target.  Raises ConflictError (`cas_mismatch`, `too_many_pending`),
        InputError (`cas_required` and what a value must not be), PreconditionError or TooLargeError.
        """
        place = parse_path(path)
        check_fields(request.fields)
        attempt = Attempt.of(credentials, Action.SECRET_PUT, idempotency, "put", place.text, request)

        def work(op: Operation) -> SecretWritten:
            # What may be written may be created: the answer is the same whether there is a secret or not.
            op.authorise(Action.SECRET_PUT, place.resource, kind="secret", name=place.text)
            self._approvals.require(op, Action.SECRET_PUT, place)
            return _once(op, attempt, lambda: self._writing.put(op, place, request, if_match))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def patch(
        self,
        credentials: Credentials,
        path: str,
        request: PatchSecret,
        *,
        idempotency: str | None = None,
        if_match: int | None = None,
    ) -> SecretWritten:
        """Write the current version, merged with the fields (RFC 7396), as a new one.

        Raises NotFoundError when there is no current version, or it is deleted or destroyed.
        """
        place = parse_path(path)
        check_fields(request.fields)
        attempt = Attempt.of(credentials, Action.SECRET_PUT, idempotency, "patch", place.text, request)
        return await self._write(
            credentials, Action.SECRET_PUT, place, attempt, lambda op: self._writing.patch(op, place, request, if_match)
        )

    async def rollback(
        self, credentials: Credentials, path: str, request: RollbackSecret, *, idempotency: str | None = None
    ) -> SecretWritten:
        """Write what an earlier version holds as a new one."""
        place = parse_path(path)
        attempt = Attempt.of(credentials, Action.SECRET_ROLLBACK, idempotency, place.text, request)
        return await self._write(
            credentials, Action.SECRET_ROLLBACK, place, attempt, lambda op: self._writing.rollback(op, place, request)
        )

    async def promote(
        self, credentials: Credentials, path: str, request: PromoteSecret, *, idempotency: str | None = None
    ) -> SecretWritten:
        """Make a pending version current in one step: current becomes previous, and previous superseded."""
        place = parse_path(path)
        attempt = Attempt.of(credentials, Action.SECRET_PROMOTE, idempotency, place.text, request)
        return await self._write(
            credentials, Action.SECRET_PROMOTE, place, attempt, lambda op: self._writing.promote(op, place, request)
        )

    async def delete(
        self, credentials: Credentials, path: str, request: SelectVersions, *, missing_ok: bool = False
    ) -> SecretInfo:
        """Delete versions softly, the current one unless others are named; what is deleted already stays so.

        `missing_ok` passes over versions that there are none of, here and below.
        """
        return await self._remove(
            credentials,
            Action.SECRET_DELETE,
            parse_path(path),
            lambda op, place: removal.delete(op, place, request, missing_ok=missing_ok),
        )

    async def undelete(
        self, credentials: Credentials, path: str, request: SelectVersions, *, missing_ok: bool = False
    ) -> SecretInfo:
        """Take soft deletions back, that of the current version unless others are named."""
        return await self._remove(
            credentials,
            Action.SECRET_UNDELETE,
            parse_path(path),
            lambda op, place: removal.undelete(op, place, request, missing_ok=missing_ok),
        )

    async def destroy(
        self, credentials: Credentials, path: str, request: SelectVersions, *, missing_ok: bool = False
    ) -> SecretInfo:
        """Forget for good what the named versions hold; raises InputError when none is named."""
        return await self._remove(
            credentials,
            Action.SECRET_DESTROY,
            parse_path(path),
            lambda op, place: removal.destroy(op, place, request, missing_ok=missing_ok),
        )

    async def remove(self, credentials: Credentials, path: str) -> None:
        """Destroy every version and free the path; a secret put there later counts its versions anew."""
        place = parse_path(path)

        def work(op: Operation) -> None:
            self._admit(op, Action.SECRET_REMOVE, place)
            removal.remove(op, place)

        await self._door.write(credentials, work)

    # --- what is told ------------------------------------------------------------------------------------------------

    async def describe(
        self,
        credentials: Credentials,
        path: str,
        request: Describe,
        *,
        if_match: int | None = None,
        create: bool = False,
    ) -> SecretInfo:
        """Tell about a secret: owner, purpose, dates, bounds, custom metadata.

        `create` makes a secret without a version where there is none, which needs `secret.put` too.
        """
        place = parse_path(path)

        def work(op: Operation) -> SecretInfo:
            held = self._admit(op, Action.SECRET_UPDATE, place, absent_ok=create)
            if held is None:
                op.authorise(Action.SECRET_PUT, place.resource, kind="secret", name=place.text)
                self._approvals.require(op, Action.SECRET_PUT, place)
            else:
                require_revision(if_match, held.revision)
            was = new_secret(op, place) if held is None else held
            changed = rules.described(was, request)
            told = rules.differences(was, changed)
            if held is None:
                store.insert_secret(op.connection, changed)
            elif told:
                changed = save(op, changed)
            else:
                op.unchanged()
                return _info(op, held)
            record(op, Action.SECRET_UPDATE, changed, {"described": list(told)})
            return _info(op, changed)

        return (await self._door.write(credentials, work)).value

    async def show(self, credentials: Credentials, path: str) -> SecretInfo:
        """Show a secret and its versions, newest first, without what they hold."""
        place = parse_path(path)

        def work(op: Operation) -> SecretInfo:
            _authorise(op, Action.SECRET_LIST, place)
            return _info(op, existing(op, place))

        return await self._door.read(credentials, work)

    async def list(
        self,
        credentials: Credentials,
        *,
        prefix: str = "",
        cursor: str | None = None,
        limit: int = PAGE_DEFAULT,
    ) -> SecretPage:
        """List the secrets that the caller may list and whose paths begin so, by path."""
        return await self._door.read(credentials, lambda op: listing.list_page(op, prefix, cursor, limit))

    async def names(self, credentials: Credentials, folder: str) -> SecretNames:
        """Name what lies directly below a folder; the environments when it is empty."""
        return await self._door.read(credentials, lambda op: listing.names_below(op, folder))

    # --- steps -------------------------------------------------------------------------------------------------------

    def _admit(self, op: Operation, action: Action, place: Path, *, absent_ok: bool = False) -> Secret | None:
        """Let a caller through to a secret, or answer what answers for all that is not to be known."""
        if absent_ok:
            op.authorise(action, place.resource, kind="secret", name=place.text)
            found = store.load_secret(op.connection, op.workspace, place.text)
        else:
            found = _authorise(op, action, place)
        self._approvals.require(op, action, place)
        return found

    async def _write(
        self,
        credentials: Credentials,
        action: Action,
        place: Path,
        attempt: Attempt | None,
        write: Callable[[Operation], SecretWritten],
    ) -> SecretWritten:
        def work(op: Operation) -> SecretWritten:
            self._admit(op, action, place)
            return _once(op, attempt, lambda: write(op))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def _remove(
        self, credentials: Credentials, action: Action, place: Path, remove: Callable[[Operation, Path], Secret]
    ) -> SecretInfo:
        def work(op: Operation) -> SecretInfo:
            self._admit(op, action, place)
            return _info(op, remove(op, place))

        return (await self._door.write(credentials, work)).value


def _authorise(op: Operation, action: Action, place: Path) -> Secret | None:
    found = store.load_secret(op.connection, op.workspace, place.text)
    resource = None if found is None else place.resource
    op.authorise(action, resource, kind="secret", name=place.text, absent=place.resource)
    return found


def _info(op: Operation, secret: Secret) -> SecretInfo:
    versions = store.list_versions(op.connection, secret)
    oldest = min((one.number for one in versions if one.number is not None), default=0)
    return secret_info(secret, oldest, versions, now=op.now)


def _once(op: Operation, attempt: Attempt | None, run: Callable[[], SecretWritten]) -> SecretWritten:
    replay = Replay(SecretWritten, lambda made: f"{made.id}:{made.sequence}", lambda made: _again(op, made))
    return idempotent(op, attempt, replay, run)


def _again(op: Operation, made: str) -> SecretWritten:
    secret_id, _, sequence = made.partition(":")
    secret = store.load_secret_by_id(op.connection, secret_id)
    version = None if secret is None else store.load_version(op.connection, secret, sequence=int(sequence))
    if secret is None or version is None:
        raise not_found("secret", secret_id)
    return secret_written(secret, version)
