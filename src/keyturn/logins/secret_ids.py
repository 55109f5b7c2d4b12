"""The operations on the secret-ids of AppRole, and the proof that one was brought.

    kt_secretid_<public part><secret><check>     stored: the public part, and a keyed digest of the whole

Whoever may issue secret-ids of a role can become its principal: `secret_id.issue` is granted on the role itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from keyturn.access.idempotency import Attempt, Replay, idempotent
from keyturn.access.moments import shown
from keyturn.access.paging import page
from keyturn.access.rules import within
from keyturn.errors import CapError, ConflictError, InputError, not_found
from keyturn.kernel import tokenformat
from keyturn.kernel.ids import is_id, new_id
from keyturn.logins import store
from keyturn.logins.answers import secret_info
from keyturn.logins.model import ACTIVE, APPROLE, REVOKED, LoginRole, Method, Proof, SecretId, role_resource
from keyturn.logins.peppers import SECRET_ID, Peppers
from keyturn.logins.refusal import RefusedLoginError
from keyturn.logins.rights import authorised_role
from keyturn.storage.transaction import ChangeKind
from keyturn.verify.networks import parse_network
from keyturn.wire.actions import Action
from keyturn.wire.keys import PAGE_DEFAULT
from keyturn.wire.logins import ApproleBinding, SecretIdInfo, SecretIdIssued, SecretIdPage

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.caller import Credentials
    from keyturn.access.door import Door, Operation
    from keyturn.kernel.secret import Secret
    from keyturn.storage.keyring import Keyring
    from keyturn.wire.logins import IssueSecretId

PREFIX: Final = "kt"
TAG: Final = "secretid"
USABLE_MAX: Final = 10_000
"""Secret-ids of one role that let somebody in."""


class SecretIdService:
    """Secret-ids; their `id` is what others call the accessor."""

    def __init__(self, door: Door, keyring: Keyring) -> None:
        """Need the door, and the keyring for digests."""
        self._door = door
        self._peppers = Peppers(keyring, SECRET_ID)

    async def issue(
        self,
        credentials: Credentials,
        method: str,
        role: str,
        request: IssueSecretId,
        *,
        idempotency: str | None = None,
    ) -> SecretIdIssued:
        """Make a secret-id of a role and show it once."""
        attempt = Attempt.of(credentials, Action.SECRET_ID_ISSUE, idempotency, method, role, request)

        def work(op: Operation) -> SecretIdIssued:
            held, found = _approle(op, Action.SECRET_ID_ISSUE, method, role)

            def again(secret_id: str) -> SecretIdIssued:
                made = store.secret_by_id(op.connection, found.id, secret_id)
                if made is None:
                    raise not_found("secret-id", secret_id)
                return _issued(found, made, None, op.now)

            replay = Replay(SecretIdIssued, lambda made: made.id, again)
            return idempotent(op, attempt, replay, lambda: self._issue(op, held, found, request))

        return (await self._door.write(credentials, work, attempt=attempt)).value

    async def list(
        self, credentials: Credentials, method: str, role: str, *, cursor: str | None = None, limit: int = PAGE_DEFAULT
    ) -> SecretIdPage:
        """List the secret-ids of a role that were not revoked, oldest first; never a secret."""

        def work(op: Operation) -> SecretIdPage:
            _, held = _approle(op, Action.SECRET_ID_READ, method, role)
            found, following = page(
                op,
                lambda after, count: store.secrets_after(op.connection, held.id, after, count),
                lambda _: True,
                cursor,
                limit,
            )
            return SecretIdPage(items=tuple(secret_info(one) for one in found), next_cursor=following)

        return await self._door.read(credentials, work)

    async def read(self, credentials: Credentials, method: str, role: str, secret_id_id: str) -> SecretIdInfo:
        """Show what is known of a secret-id, by its id."""

        def work(op: Operation) -> SecretIdInfo:
            _, held = _approle(op, Action.SECRET_ID_READ, method, role)
            return secret_info(_existing(op, held, secret_id_id))

        return await self._door.read(credentials, work)

    async def find(self, credentials: Credentials, method: str, role: str, secret_id: str) -> SecretIdInfo:
        """Show what is known of a secret-id, by itself; uses none of its uses."""

        def work(op: Operation) -> SecretIdInfo:
            _, held = _approle(op, Action.SECRET_ID_READ, method, role)
            found = self._presented(op.connection, op.workspace, secret_id)
            if found is None or found.role != held.id:
                raise not_found("secret-id", "the one presented")
            return secret_info(found)

        return await self._door.read(credentials, work)

    async def revoke(self, credentials: Credentials, method: str, role: str, secret_id_id: str) -> SecretIdInfo:
        """Revoke a secret-id, by its id; the tokens it gave live on until they end."""

        def work(op: Operation) -> SecretIdInfo:
            held, found = _approle(op, Action.SECRET_ID_REVOKE, method, role)
            known = _existing(op, found, secret_id_id)
            if known.state == REVOKED:
                op.unchanged()
                return secret_info(known)
            store.set_secret_state(op.connection, known.id, REVOKED)
            op.record(
                Action.SECRET_ID_REVOKE,
                role_resource(held.name, found.name).name,
                kind=ChangeKind.LOGIN,
                entity=found.id,
                detail={"secret_id": known.id},
            )
            return secret_info(replace(known, state=REVOKED))

        return (await self._door.write(credentials, work)).value

    def prove(self, connection: Connection, role: LoginRole, presented: Secret, ip: str | None, now: float) -> Proof:
        """Return the identity of a secret-id of the role; takes none of its uses.  Raises RefusedLoginError."""
        found = self._presented(connection, role.workspace, presented.reveal())
        if found is None or found.role != role.id:
            raise RefusedLoginError("secret_id")
        if not found.usable(now):
            raise RefusedLoginError("secret_id_state")
        if found.cidrs and not within(found.cidrs, ip):
            raise RefusedLoginError("secret_id_network")
        # One that may be used so often is used each time; any other gets the same live token again.
        phrase = f"{role.role_id}\0{presented.reveal()}".encode() if found.uses_left is None else None
        metadata = {"role_name": role.name, **found.metadata}
        return Proof(role.name, metadata, expires_at=found.expires_at, phrase=phrase, secret_id=found.id)

    def _presented(self, connection: Connection, workspace: str, presented: str) -> SecretId | None:
        parsed = tokenformat.parse(presented)
        if parsed is None or parsed.tag != TAG:
            return None
        found = store.secret_by_lookup(connection, workspace, parsed.version_id)
        if found is None:
            Peppers.pretend(presented)
            return None
        return found if self._peppers.matches(connection, workspace, presented, found.digest) else None

    def _issue(self, op: Operation, held: Method, role: LoginRole, request: IssueSecretId) -> SecretIdIssued:
        if store.count_secrets(op.connection, role.id, op.now) >= USABLE_MAX:
            raise CapError(f"a role has at most {USABLE_MAX} secret-ids", hint="revoke those that are not needed")
        binding = role.config.approle or ApproleBinding()
        ttl = binding.secret_id_ttl_seconds if request.ttl_seconds is UNSET else request.ttl_seconds
        uses = binding.secret_id_uses if request.uses is UNSET else request.uses
        cidrs = binding.secret_id_cidrs if request.cidrs is UNSET else request.cidrs
        _require_within(binding, ttl, uses)
        minted = tokenformat.mint(PREFIX, TAG)
        made = SecretId(
            id=new_id("sid", op.now),
            workspace=op.workspace,
            role=role.id,
            lookup=minted.version_id,
            digest=self._peppers.digest(op.connection, op.workspace, minted.key.reveal(), op.now),
            metadata=dict(request.metadata),
            cidrs=_cidrs(cidrs),
            uses_left=uses,
            state=ACTIVE,
            created_at=op.now,
            created_by=op.caller.principal,
            expires_at=None if ttl is None else op.now + ttl,
            last_used_at=None,
        )
        store.insert_secret(op.connection, made)
        op.record(
            Action.SECRET_ID_ISSUE,
            role_resource(held.name, role.name).name,
            kind=ChangeKind.LOGIN,
            entity=role.id,
            detail={"secret_id": made.id, "uses": uses, "expires_at": shown(made.expires_at)},
        )
        return _issued(role, made, minted.key, op.now)


def _approle(op: Operation, action: Action, method: str, role: str) -> tuple[Method, LoginRole]:
    held, found = authorised_role(op, action, method, role)
    if held.kind != APPROLE:
        message = f"{held.name} is a {held.kind} method; only approle has secret-ids"
        raise ConflictError(message, code="not_approle")
    return held, found


def _existing(op: Operation, role: LoginRole, secret_id: str) -> SecretId:
    found = store.secret_by_id(op.connection, role.id, secret_id) if is_id("sid", secret_id) else None
    if found is None:
        raise not_found("secret-id", secret_id[:64])
    return found


def _require_within(binding: ApproleBinding, ttl: int | None, uses: int | None) -> None:
    """Refuse a secret-id that lives longer, or lets in more often, than those of the role may."""
    for asked, bound, field in (
        (ttl, binding.secret_id_ttl_seconds, "ttl_seconds"),
        (uses, binding.secret_id_uses, "uses"),
    ):
        if bound is not None and (asked is None or asked > bound):
            raise InputError(f"expected at most {bound}, as the role says", field=field)


def _cidrs(given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        try:
            parse_network(one)
        except ValueError as error:
            raise InputError(f"{error}, in {one!r}", field="cidrs") from None
    return tuple(dict.fromkeys(given))


def _issued(role: LoginRole, made: SecretId, secret: Secret | None, now: float) -> SecretIdIssued:
    left = None if made.expires_at is None else max(0, round(made.expires_at - now))
    return SecretIdIssued(
        id=made.id,
        role=role.name,
        role_id=role.role_id,
        secret_id=None if secret is None else secret.reveal(),
        ttl_seconds=left,
        uses=made.uses_left,
        expires_at=shown(made.expires_at),
    )
