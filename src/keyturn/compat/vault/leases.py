"""`<source>/creds/<role>` and `sys/leases/…`: credentials made on demand, and their leases by their paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.access.caller import Resource
from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import NOTHING, PERMISSION_DENIED, Answer, RefusedAs
from keyturn.compat.vault.bodies import LeaseBody
from keyturn.compat.vault.tokens import NOT_RENEWABLE
from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.leases.model import lease_resource, role_resource
from keyturn.wire.actions import Action
from keyturn.wire.leases import LEASE_SECONDS_MAX, LeaseState

if TYPE_CHECKING:
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.places import Places
    from keyturn.compat.vault.routing import Table, Work
    from keyturn.leases.service import LeaseService
    from keyturn.wire.leases import LeaseInfo

INVALID: Final = "invalid lease"
NOT_FOUND: Final = "lease not found"
NAMES_MAX: Final = 10_000
_ROUNDS_MAX: Final = 100
_PATH_CHARACTERS_MAX: Final = 400
_PATH_SEGMENTS: Final = 4


class LeaseOperations:
    """The routes of leases."""

    def __init__(self, leases: LeaseService, places: Places) -> None:
        """Need the leases, and who knows what the caller may do."""
        self._leases = leases
        self._places = places

    def table(self) -> Table:
        """Return each route's functions, the older names of some among them."""
        renew: dict[str, Work] = {"write": self.renew}
        revoke: dict[str, Work] = {"write": self.revoke}
        return {
            "{mount}/creds/{role}": {"read": self.create, "write": self.create},
            "sys/leases/lookup": {"write": self.lookup},
            "sys/leases/lookup/{prefix*}": {"list": self.list_names},
            "sys/leases/renew": renew,
            "sys/leases/renew/{lease*}": renew,
            "sys/renew": renew,
            "sys/renew/{lease*}": renew,
            "sys/leases/revoke": revoke,
            "sys/leases/revoke/{lease*}": revoke,
            "sys/revoke": revoke,
            "sys/revoke/{lease*}": revoke,
            "sys/leases/revoke-prefix/{prefix*}": {"write": self.revoke_prefix},
            "sys/revoke-prefix/{prefix*}": {"write": self.revoke_prefix},
        }

    async def create(self, ask: Ask) -> Answer:
        """Make a credential."""
        ttl = _within(durations.seconds(ask.body.get("ttl") or ask.query.get("ttl"), "ttl"), "ttl")
        source, role = ask.parts["mount"], ask.parts["role"]
        try:
            made = await self._leases.create(ask.credentials, source, role, ttl_seconds=ttl)
        except NotFoundError:
            raise await self._places.refuse_absent(
                ask, Action.LEASE_CREATE, Resource(role_resource(source, role))
            ) from None
        return Answer(
            data=made.fields, lease_id=made.lease_id, lease_duration=made.ttl_seconds, renewable=made.renewable
        )

    async def lookup(self, ask: Ask) -> Answer:
        """Show a lease."""
        try:
            info = await self._leases.lookup(ask.credentials, _lease(ask))
        except NotFoundError:
            raise await self._absent(ask, Action.LEASE_READ, INVALID) from None
        data = {
            "id": info.lease_id,
            "issue_time": info.created_at,
            "expire_time": info.expires_at,
            "last_renewal": None,
            "renewable": info.renewable,
            "ttl": info.ttl_seconds,
        }
        return Answer(data=data)

    async def list_names(self, ask: Ask) -> Answer:
        """Name what lies directly below a path: live leases, and folders with a `/` at the end."""
        folder = ask.parts["prefix"]
        inside = f"{folder}/" if folder else ""
        found: set[str] = set()
        cursor: str | None = None
        while len(found) < NAMES_MAX:
            page = await self._leases.list(
                ask.credentials, state=LeaseState.ACTIVE, prefix=folder, cursor=cursor, limit=200
            )
            for one in page.items:
                if one.lease_id.startswith(inside):
                    name, slash, _ = one.lease_id.removeprefix(inside).partition("/")
                    found.add(name + slash)
            cursor = page.next_cursor
            if cursor is None:
                break
        if not found:
            raise RefusedAs(404)
        return Answer(data={"keys": sorted(found)})

    async def renew(self, ask: Ask) -> Answer:
        """Let a lease end so long after now, within its most."""
        asked = _within(durations.seconds(ask.fields(LeaseBody).increment, "increment"), "increment")
        try:
            info = await self._leases.renew(ask.credentials, _lease(ask), asked)
        except NotFoundError:
            raise await self._absent(ask, Action.LEASE_RENEW, NOT_FOUND) from None
        except ConflictError as error:
            raise RefusedAs(400, NOT_RENEWABLE, str(error)) from None
        return _renewed(info)

    async def revoke(self, ask: Ask) -> Answer:
        """End a lease."""
        try:
            await self._leases.revoke(ask.credentials, _lease(ask))
        except NotFoundError:
            raise await self._absent(ask, Action.LEASE_REVOKE, NOT_FOUND) from None
        return NOTHING

    async def revoke_prefix(self, ask: Ask) -> Answer:
        """End every lease under a path."""
        prefix = ask.parts["prefix"]
        if not prefix or len(prefix) > _PATH_CHARACTERS_MAX:
            raise RefusedAs(400, "missing prefix")
        try:
            for _ in range(_ROUNDS_MAX):
                if not (await self._leases.revoke_prefix(ask.credentials, prefix)).more:
                    break
        except NotFoundError:
            # Whoever may end leases there is told nothing about whether there are any.
            raise RefusedAs(403, PERMISSION_DENIED) from None
        return NOTHING

    async def _absent(self, ask: Ask, action: Action, words: str) -> RefusedAs:
        """Return the answer for a lease that is not there: these words for a caller who may do that, else 403."""
        named = _lease(ask)
        name = lease_resource(named) if named.count("/") == _PATH_SEGMENTS - 1 else f"lease/{named}"
        refused = await self._places.refuse_absent(ask, action, Resource(name))
        return RefusedAs(400, words) if refused.status == 404 else refused


def _renewed(info: LeaseInfo) -> Answer:
    return Answer(lease_id=info.lease_id, renewable=info.renewable, lease_duration=info.ttl_seconds)


def _lease(ask: Ask) -> str:
    named = ask.parts.get("lease") or ask.fields(LeaseBody).lease_id
    if not named or len(named) > _PATH_CHARACTERS_MAX:
        raise RefusedAs(400, "lease_id must be specified")
    return named


def _within(seconds: int | None, field: str) -> int | None:
    if seconds is not None and seconds > LEASE_SECONDS_MAX:
        raise InputError(f"{field}: expected at most {LEASE_SECONDS_MAX} seconds", field=field)
    return seconds or None
