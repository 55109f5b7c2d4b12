"""Each operation of the edge in terms of our services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from keyturn.compat.unkey import translation, wire
from keyturn.errors import (
    BrokenInvariantError,
    ConflictError,
    InputError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
    not_found,
)
from keyturn.wire.keys import CreateKeyspace, IssueKey, KeyFilter, RevokeKey, RotateKey, UpdateKey
from keyturn.wire.limits import TakeLimit
from keyturn.wire.quotas import SetBalance, TopUp
from keyturn.wire.rules import QuotaInput
from keyturn.wire.verification import Code, VerifyRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from keyturn.access.caller import Credentials
    from keyturn.kernel.clock import Clock
    from keyturn.keys.keyspaces import KeyspaceService
    from keyturn.keys.named_limits import NamedLimitService
    from keyturn.keys.service import KeyService
    from keyturn.keys.verification import VerifyService
    from keyturn.quotas.service import QuotaService
    from keyturn.wire.keys import KeyDetail, KeyInfo
    from keyturn.wire.verification import VerifyResponse

UPDATE_ATTEMPTS: Final = 3

Work = tuple[type[Any], "Callable[[Credentials, Any], Awaitable[object]]"]


class UnkeyOperations:
    """The operations, by the services they are made of."""

    def __init__(
        self,
        keyspaces: KeyspaceService,
        keys: KeyService,
        verification: VerifyService,
        quotas: QuotaService,
        limits: NamedLimitService,
        clock: Clock,
    ) -> None:
        """Need the services."""
        self._keyspaces = keyspaces
        self._keys = keys
        self._verification = verification
        self._quotas = quotas
        self._limits = limits
        self._now = clock.now

    def table(self) -> dict[str, Work]:
        """Return each operation's body and function, by its name in the path."""
        return {
            "apis.createApi": (wire.CreateApi, self.create_api),
            "apis.listKeys": (wire.ListKeys, self.list_keys),
            "keys.createKey": (wire.CreateKey, self.create_key),
            "keys.verifyKey": (wire.VerifyKey, self.verify_key),
            "keys.getKey": (wire.GetKey, self.get_key),
            "keys.updateKey": (wire.UpdateKeyBody, self.update_key),
            "keys.deleteKey": (wire.DeleteKey, self.delete_key),
            "keys.rerollKey": (wire.RerollKey, self.reroll_key),
            "keys.updateCredits": (wire.UpdateCredits, self.update_credits),
            "keys.whoami": (wire.Whoami, self.whoami),
            "ratelimit.limit": (wire.Limit, self.limit),
        }

    # --- APIs -----------------------------------------------------------------------------------------------------

    async def create_api(self, credentials: Credentials, body: wire.CreateApi) -> wire.NewApi:
        """Create a keyspace for production keys, named after the API."""
        name = translation.keyspace_name(body.name)
        made = await self._keyspaces.create(
            credentials,
            CreateKeyspace(
                name=name,
                prefix=translation.keyspace_prefix(name),
                environment="production",
                description=body.name,
            ),
        )
        return wire.NewApi(api_id=made.name)

    async def list_keys(self, credentials: Credentials, body: wire.ListKeys) -> wire.Page:
        """List the keys of a keyspace that were not revoked."""
        _refuse_decryption(asked=body.decrypt)
        keyspace = await self._keyspaces.show(credentials, body.api_id)
        page = await self._keys.list(
            credentials,
            KeyFilter(keyspace=keyspace.name, owner=body.external_id),
            cursor=body.cursor,
            limit=body.limit,
        )
        left = await self._remaining(credentials, page.items)
        items = tuple(
            translation.key_data(one, keyspace.prefix, keyspace.tag, None, left.get(one.id))
            for one in page.items
            if one.state != "revoked"
        )
        return wire.Page(items, wire.Pagination(has_more=page.next_cursor is not None, cursor=page.next_cursor))

    # --- keys -----------------------------------------------------------------------------------------------------

    async def create_key(self, credentials: Credentials, body: wire.CreateKey) -> wire.NewKey:
        """Issue a key."""
        if body.recoverable:
            raise InputError("recoverable: a secret is shown once and cannot be recovered", field="recoverable")
        _refuse_roles(body.roles)
        if body.prefix is not None:
            keyspace = await self._keyspaces.show(credentials, body.api_id)
            if body.prefix != keyspace.prefix:
                raise InputError(
                    f"prefix: the keys of {keyspace.name} begin with {keyspace.prefix}",
                    field="prefix",
                    hint="leave it out, or create the keyspace with that prefix: keyturn keyspaces create",
                )
        quota = translation.credits_rule(body.credits, None)
        made = await self._keys.issue(
            credentials,
            IssueKey(
                keyspace=body.api_id,
                owner=body.external_id or translation.NO_OWNER,
                purpose=translation.PURPOSE,
                scopes=tuple(body.permissions or ()),
                name=body.name or None,
                metadata=translation.metadata(body.meta),
                expires_at=translation.moment(body.expires),
                limits=translation.limit_rules(body.ratelimits),
                quotas=() if quota is None else (quota,),
            ),
        )
        if made.key is None:
            raise BrokenInvariantError("a new secret was not shown")
        if not body.enabled:
            await self._keys.disable(credentials, made.id)
        return wire.NewKey(key_id=made.id, key=made.key)

    async def verify_key(self, credentials: Credentials, body: wire.VerifyKey) -> wire.VerifiedKey:
        """Verify a key; several keyspaces are asked one by one, and one that it is not in charges nothing."""
        answer: VerifyResponse | None = None
        for keyspace in body.keyspaces or (None,):
            answer = await self._verify(credentials, body, keyspace)
            if answer.code != Code.NOT_FOUND:
                break
        if answer is None or answer.code == Code.UNAVAILABLE:
            raise UnavailableError("the key could not be verified", hint="try again")
        return translation.verdict(answer, asked_permissions=body.permissions is not None, now=self._now())

    async def _verify(self, credentials: Credentials, body: wire.VerifyKey, keyspace: str | None) -> VerifyResponse:
        request = translation.verify_request(body, keyspace)
        try:
            return await self._decided(credentials, request)
        except InputError as error:
            # A cost in credits is charged to those that have some; a key without them has no such quota.
            if error.field is None or not error.field.startswith("quotas"):
                raise
            return await self._decided(credentials, _without_quotas(request))

    async def _decided(self, credentials: Credentials, request: VerifyRequest) -> VerifyResponse:
        now = self._verification.verify_now(credentials.token.reveal_bytes(), credentials.ip, request)
        return now if now is not None else await self._verification.verify(credentials, request)

    async def get_key(self, credentials: Credentials, body: wire.GetKey) -> wire.KeyData:
        """Show a key."""
        _refuse_decryption(asked=body.decrypt)
        return await self._shown(credentials, await self._living(credentials, body.key_id))

    async def update_key(self, credentials: Credentials, body: wire.UpdateKeyBody) -> wire.Empty:
        """Change a key; what is left out stays."""
        _refuse_roles(body.roles)
        for _ in range(UPDATE_ATTEMPTS):
            held = await self._living(credentials, body.key_id)
            request = _update_of(body, held)
            try:
                await self._keys.update(credentials, body.key_id, request, if_match=held.revision)
                break
            except PreconditionError:
                continue
        else:
            raise ConflictError("the key is being changed by others", hint="try again")
        if isinstance(body.credits, wire.UpdateCreditsPart) and isinstance(body.credits.remaining, int):
            await self._set_credits(credentials, body.key_id, body.credits.remaining)
        if body.enabled is not UNSET:
            act = self._keys.enable if body.enabled else self._keys.disable
            await act(credentials, body.key_id)
        return wire.Empty()

    async def delete_key(self, credentials: Credentials, body: wire.DeleteKey) -> wire.Empty:
        """Revoke a key for good."""
        await self._living(credentials, body.key_id)
        await self._keys.revoke(credentials, body.key_id, RevokeKey())
        return wire.Empty()

    async def reroll_key(self, credentials: Credentials, body: wire.RerollKey) -> wire.NewKey:
        """Give a key a new secret under the same id; the old one stays valid for the time asked for."""
        overlap = translation.overlap_seconds(body.expiration)
        made = await self._keys.rotate(credentials, body.key_id, RotateKey(overlap_seconds=overlap))
        if made.key is None:
            raise BrokenInvariantError("a new secret was not shown")
        return wire.NewKey(key_id=made.id, key=made.key)

    async def update_credits(self, credentials: Credentials, body: wire.UpdateCredits) -> wire.ShownCredits:
        """Set, add or take credits; without bound when they are set to `null`, and never below nothing."""
        held = await self._living(credentials, body.key_id)
        rule = translation.credits_of(held.quotas)
        if body.operation == "set" and body.value is None:
            await self._replace_credits(credentials, held, None)
            return wire.ShownCredits(remaining=None)
        if not isinstance(body.value, int):
            raise InputError("value: expected a number", field="value")
        if body.operation == "set":
            if rule is None:
                await self._replace_credits(
                    credentials, held, QuotaInput(name=translation.CREDITS, amount=body.value, period="none")
                )
            remaining = await self._set_credits(credentials, held.id, body.value)
        elif rule is None:
            raise ConflictError("the key has no credits: it may be used without bound", hint="set them first")
        else:
            units = body.value if body.operation == "increment" else -body.value
            balance = await self._quotas.top_up(
                credentials, TopUp(quota=translation.CREDITS, units=units, key=held.id), to_zero=True
            )
            remaining = balance.remaining
        held = await self._living(credentials, body.key_id)
        return translation.shown_credits(held.quotas, remaining) or wire.ShownCredits(remaining=None)

    async def whoami(self, credentials: Credentials, body: wire.Whoami) -> wire.KeyData:
        """Show the key that a secret belongs to; charges nothing."""
        answer = await self._decided(credentials, VerifyRequest(key=body.key, cost=0))
        if answer.key_id is None or answer.code == Code.REVOKED:
            raise not_found("key", "")
        return await self._shown(credentials, await self._living(credentials, answer.key_id))

    # --- limits ---------------------------------------------------------------------------------------------------

    async def limit(self, credentials: Credentials, body: wire.Limit) -> wire.Limited:
        """Charge a limit on anything that the caller can name."""
        taken = await self._limits.take(
            credentials,
            TakeLimit(
                namespace=body.namespace,
                identifier=body.identifier,
                limit=body.limit,
                window_seconds=translation.window_seconds(body.duration, "duration"),
                cost=body.cost,
            ),
        )
        reset = round((self._now() + taken.reset_seconds) * 1000)
        return wire.Limited(limit=taken.limit, remaining=taken.remaining, reset=reset, success=taken.admitted)

    # --- shared ---------------------------------------------------------------------------------------------------

    async def _living(self, credentials: Credentials, key_id: str) -> KeyDetail:
        """Return a key; one that was revoked is gone, as its clients expect of one that was deleted."""
        found = await self._keys.show(credentials, key_id)
        if found.state == "revoked":
            raise not_found("key", key_id)
        return found

    async def _shown(self, credentials: Credentials, key: KeyDetail) -> wire.KeyData:
        keyspace = await self._keyspaces.show(credentials, key.keyspace)
        left = await self._remaining(credentials, (key,))
        newest = key.versions[0] if key.versions else None
        return translation.key_data(key, keyspace.prefix, keyspace.tag, newest, left.get(key.id))

    async def _remaining(self, credentials: Credentials, keys: Iterable[KeyInfo]) -> dict[str, int]:
        """Return what is left of each key's credits, as far as the caller may know."""
        left = {}
        for key in keys:
            if translation.credits_of(key.quotas) is None:
                continue
            try:
                balances = await self._quotas.list(credentials, key=key.id)
            except NotFoundError:
                continue
            for one in balances.items:
                if one.quota == translation.CREDITS and one.state != "closed":
                    left[key.id] = one.remaining
        return left

    async def _replace_credits(self, credentials: Credentials, held: KeyDetail, rule: QuotaInput | None) -> None:
        await self._keys.update(credentials, held.id, UpdateKey(quotas=_quotas(held, rule)), if_match=held.revision)

    async def _set_credits(self, credentials: Credentials, key_id: str, units: int) -> int:
        asked = SetBalance(quota=translation.CREDITS, units=units, key=key_id)
        return (await self._quotas.set_balance(credentials, asked)).remaining


def _update_of(body: wire.UpdateKeyBody, held: KeyDetail) -> UpdateKey:
    """Return what an update changes of a key."""
    quotas: Any = UNSET
    if body.credits is not UNSET:
        rule = translation.credits_of(held.quotas)
        given = body.credits
        quotas = _quotas(held, None if given is None else translation.credits_rule(given, rule))
    limits: Any = UNSET if body.ratelimits is UNSET else translation.limit_rules(body.ratelimits)
    return UpdateKey(
        name=body.name if body.name is UNSET else (body.name or None),
        owner=UNSET if body.external_id is UNSET else (body.external_id or translation.NO_OWNER),
        metadata=UNSET if body.meta is UNSET else translation.metadata(body.meta),
        expires_at=UNSET if body.expires is UNSET else translation.moment(body.expires),
        scopes=UNSET if body.permissions is UNSET else tuple(body.permissions),
        quotas=quotas,
        limits=limits,
    )


def _quotas(held: KeyDetail, rule: QuotaInput | None) -> tuple[QuotaInput, ...]:
    """Return a key's quotas with its credits replaced by `rule`, or taken out."""
    kept = tuple(
        msgspec.convert(msgspec.to_builtins(one), QuotaInput) for one in held.quotas if one.name != translation.CREDITS
    )
    return kept if rule is None else (*kept, rule)


def _without_quotas(request: VerifyRequest) -> VerifyRequest:
    return msgspec.structs.replace(request, quotas=())


def _refuse_roles(roles: object) -> None:
    if isinstance(roles, list) and roles:
        raise InputError("roles: there are none here", field="roles", hint="use permissions, or a plan with scopes")


def _refuse_decryption(*, asked: bool) -> None:
    if asked:
        raise InputError("decrypt: a secret is shown once and cannot be recovered", field="decrypt")
