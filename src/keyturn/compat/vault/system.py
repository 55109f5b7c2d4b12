"""`sys/…`: health, seal, mounts and capabilities; what clients ask before they ask for anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.compat.vault import durations
from keyturn.compat.vault.answers import NOTHING, PERMISSION_DENIED, Answer, RefusedAs
from keyturn.compat.vault.asking import flag
from keyturn.compat.vault.bodies import MountBody, PathsBody
from keyturn.compat.vault.places import SECRET, folder_of, secret_resource
from keyturn.compat.vault.refusing import refuse_given
from keyturn.compat.vault.translation import words
from keyturn.errors import InputError
from keyturn.kernel.clock import rfc3339
from keyturn.vault.paths import check_environment
from keyturn.wire.actions import Action

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from keyturn.access.caller import Resource
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.places import Places
    from keyturn.compat.vault.routing import Table
    from keyturn.kernel.clock import Clock
    from keyturn.logins.service import LoginService
    from keyturn.vault.service import VaultService

SPOKEN_VERSION: Final = "1.15.0"
"""The release whose dialect this is; clients compare it to decide what they may ask."""
CLUSTER: Final = "keyturn"
PATHS_MAX: Final = 256

_NO_ID: Final = "00000000-0000-0000-0000-000000000000"
_CAPABILITIES: Final[dict[str, tuple[tuple[Action, tuple[str, ...]], ...]]] = {
    "data": (
        (Action.SECRET_PUT, ("create", "update", "patch")),
        (Action.SECRET_READ, ("read",)),
        (Action.SECRET_DELETE, ("delete",)),
    ),
    "metadata": (
        (Action.SECRET_UPDATE, ("create", "update", "patch")),
        (Action.SECRET_LIST, ("list", "read")),
        (Action.SECRET_REMOVE, ("delete",)),
    ),
    "subkeys": ((Action.SECRET_LIST, ("read",)),),
    "delete": ((Action.SECRET_DELETE, ("create", "update")),),
    "undelete": ((Action.SECRET_UNDELETE, ("create", "update")),),
    "destroy": ((Action.SECRET_DESTROY, ("create", "update")),),
}
"""For each word behind a mount, what its actions are worth there."""


class SystemOperations:
    """The routes of `sys` that are about the server itself."""

    def __init__(
        self,
        secrets: VaultService,
        logins: LoginService,
        places: Places,
        clock: Clock,
        *,
        ready: Callable[[], Awaitable[bool]],
        draining: Callable[[], bool],
        release: str,
    ) -> None:
        """Need who knows of mounts and methods, and how this worker is."""
        self._secrets = secrets
        self._logins = logins
        self._places = places
        self._clock = clock
        self._ready = ready
        self._draining = draining
        self._version = f"{SPOKEN_VERSION}+keyturn.{release}"

    def table(self) -> Table:
        """Return each route's functions."""
        return {
            "sys/health": {"read": self.health},
            "sys/seal-status": {"read": self.seal_status},
            "sys/leader": {"read": self.leader},
            "sys/init": {"read": self.initialised},
            "sys/mounts": {"read": self.mounts},
            "sys/mounts/{mount}": {"read": self.mount, "write": self.enable, "delete": self.disable},
            "sys/mounts/{mount}/tune": {"read": self.tuning, "write": self.tune},
            "sys/auth": {"read": self.methods},
            "sys/internal/ui/mounts": {"read": self.visible_mounts},
            "sys/internal/ui/mounts/{path*}": {"read": self.mount_of_path},
            "sys/capabilities-self": {"write": self.capabilities},
        }

    # --- how the server is -------------------------------------------------------------------------------------------

    async def health(self, ask: Ask) -> Answer:
        """Tell how this worker is: 200; 429 while it stops, which is a standby's; 503 while it cannot serve."""
        sealed, standby = not await self._ready(), self._draining()
        status = _code(ask, "activecode", 200)
        if standby and not (flag(ask.query, "standbyok") or flag(ask.query, "perfstandbyok")):
            status = _code(ask, "standbycode", 429)
        elif sealed and not standby:
            status = _code(ask, "sealedcode", 503)
        body = {
            "initialized": True,
            "sealed": sealed and not standby,
            "standby": standby,
            "performance_standby": False,
            "replication_performance_mode": "disabled",
            "replication_dr_mode": "disabled",
            "server_time_utc": int(self._clock.now()),
            "version": self._version,
            "enterprise": False,
            "cluster_name": CLUSTER,
            "cluster_id": _NO_ID,
            "echo_duration_ms": 0,
            "clock_skew_ms": 0,
        }
        return Answer(status=status, plain=body)

    async def seal_status(self, _ask: Ask) -> Answer:
        """Tell whether this worker can serve; it is never unsealed by hand."""
        body = {
            "type": "shamir",
            "initialized": True,
            "sealed": not await self._ready(),
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "version": self._version,
            "build_date": "",
            "migration": False,
            "cluster_name": CLUSTER,
            "cluster_id": _NO_ID,
            "recovery_seal": False,
            "storage_type": CLUSTER,
        }
        return Answer(plain=body)

    async def leader(self, _ask: Ask) -> Answer:
        """Say that this worker leads: every one does."""
        body = {
            "ha_enabled": False,
            "is_self": True,
            "active_time": rfc3339(0),
            "leader_address": "",
            "leader_cluster_address": "",
            "performance_standby": False,
            "performance_standby_last_remote_wal": 0,
        }
        return Answer(plain=body)

    async def initialised(self, _ask: Ask) -> Answer:
        """Say that there is nothing to initialise."""
        return Answer(plain={"initialized": True})

    # --- what is where -----------------------------------------------------------------------------------------------

    async def mounts(self, ask: Ask) -> Answer:
        """Name the mounts: `secret`, and the environments in which the caller may list anything."""
        found = await self._mounts(ask)
        return Answer(data=found, beside=found)

    async def methods(self, ask: Ask) -> Answer:
        """Name the ways to log in that the caller may read."""
        found = await self._methods(ask)
        return Answer(data=found, beside=found)

    async def visible_mounts(self, ask: Ask) -> Answer:
        """Name mounts and ways to log in."""
        return Answer(data={"auth": await self._methods(ask), "secret": await self._mounts(ask)})

    async def mount_of_path(self, ask: Ask) -> Answer:
        """Tell of the mount that a path lies in: KV version 2, whatever the environment."""
        name = await self._name(ask, ask.parts["path"].partition("/")[0])
        return Answer(data={"path": f"{name}/", **_kv(name)})

    async def mount(self, ask: Ask) -> Answer:
        """Tell of a mount; every environment is one."""
        return Answer(data=_kv(await self._name(ask, ask.parts["mount"])))

    async def enable(self, ask: Ask) -> Answer:
        """Accept a mount of KV version 2, which is there as soon as something is in it; refuse every other kind."""
        name = await self._name(ask, ask.parts["mount"])
        body = ask.fields(MountBody)
        if body.type not in {"kv", "kv-v2"} or body.version != "2":
            hint = "write type kv-v2; for credentials of databases, `keyturn credential-sources create`"
            raise InputError("only KV version 2 can be mounted here", field="type", hint=hint)
        if f"{name}/" in await self._mounts(ask):
            raise RefusedAs(400, f"path is already in use at {name}/")
        return NOTHING

    async def disable(self, ask: Ask) -> Answer:
        """Take nothing away: a mount ends with its last secret, and no request ends them all at once."""
        name = await self._name(ask, ask.parts["mount"])
        if f"{name}/" in await self._mounts(ask):
            raise InputError("a mount with secrets in it is not disabled", hint="remove its secrets, each by its path")
        return NOTHING

    async def tuning(self, ask: Ask) -> Answer:
        """Tell the settings of a mount, which has none of its own."""
        mount = _kv(await self._name(ask, ask.parts["mount"]))
        return Answer(data={**mount["config"], "description": "", "options": mount["options"]})

    async def tune(self, ask: Ask) -> Answer:
        """Accept what is so already."""
        await self._name(ask, ask.parts["mount"])
        body = ask.fields(MountBody)
        refuse_given(
            default_lease_ttl=durations.seconds(body.default_lease_ttl, "default_lease_ttl"),
            max_lease_ttl=durations.seconds(body.max_lease_ttl, "max_lease_ttl"),
            version=body.version not in {"", "2"},
        )
        return NOTHING

    async def _name(self, ask: Ask, name: str) -> str:
        """Return the name of a mount for a caller who is known; raises the refusal of one that none can have."""
        await self._places.require_caller(ask)
        if name != SECRET:
            try:
                check_environment(name)
            except InputError:
                raise RefusedAs(403, PERMISSION_DENIED, f"{name[:64]!r} cannot be the name of an environment") from None
        return name

    async def _mounts(self, ask: Ask) -> dict[str, Any]:
        names = (await self._secrets.names(ask.credentials, "")).names
        return {f"{name}/": _kv(name) for name in (SECRET, *(one.removesuffix("/") for one in names))}

    async def _methods(self, ask: Ask) -> dict[str, Any]:
        page = await self._logins.methods.list(ask.credentials, limit=200)
        found = {f"{one.name}/": _mount(one.name, _KINDS.get(one.kind, one.kind), None) for one in page.items}
        return {"token/": _mount("token", "token", None), **found}

    # --- what the caller may do --------------------------------------------------------------------------------------

    async def capabilities(self, ask: Ask) -> Answer:
        """Say what the caller may do at paths; `deny` alone where that is nothing."""
        body = ask.fields(PathsBody)
        paths = words(body.paths) or words(body.path)
        if not 0 < len(paths) <= PATHS_MAX:
            raise InputError(f"paths: expected 1 to {PATHS_MAX} paths", field="paths")
        await self._places.require_caller(ask)
        found: dict[str, Any] = {path: await self._capabilities(ask, path) for path in paths}
        data = {**found, "capabilities": found[paths[0]]}
        return Answer(data=data, beside=data)

    async def _capabilities(self, ask: Ask, path: str) -> list[str]:
        mount, _, rest = path.strip("/").partition("/")
        word, _, below = rest.partition("/")
        worth = _CAPABILITIES.get(word, ())
        try:
            environment = (await self._places.environment(ask, mount)).environment
            asked = [(action, _resource(action, f"{environment}/{below}".rstrip("/"))) for action, _ in worth]
        except InputError:
            return ["deny"]
        allowed = await self._places.allowed(ask, asked) if asked else []
        granted = {name for (_, names), may in zip(worth, allowed, strict=True) if may for name in names}
        return sorted(granted) or ["deny"]


_KINDS: Final = {"certificate": "cert"}


def _resource(action: Action, path: str) -> Resource:
    return folder_of(path) if action is Action.SECRET_LIST else secret_resource(path)


def _kv(name: str) -> dict[str, Any]:
    return _mount(name, "kv", {"version": "2"})


def _mount(name: str, kind: str, options: dict[str, str] | None) -> dict[str, Any]:
    return {
        "accessor": f"{kind}_{name}",
        "config": {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0},
        "description": "",
        "external_entropy_access": False,
        "local": False,
        "options": options,
        "seal_wrap": False,
        "type": kind,
        "uuid": "",
    }


def _code(ask: Ask, name: str, default: int) -> int:
    given = ask.number(name)
    if given is None:
        return default
    if not 200 <= given <= 599:
        raise InputError(f"{name}: expected a status from 200 to 599", field=name)
    return given
