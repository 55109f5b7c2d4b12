"""KV version 2 in terms of held secrets: `<mount>/{data,metadata,delete,undelete,destroy,subkeys,config}`.

A version of theirs is a version of ours by its number.  Soft deletion, undeletion and destruction are the same; so is
check-and-set.  Versions that are not promoted yet have no number and are not seen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from keyturn.compat.vault import durations, translation
from keyturn.compat.vault.answers import NOTHING, Answer, RefusedAs
from keyturn.compat.vault.bodies import ConfigBody, DataBody, MetadataBody, VersionsBody
from keyturn.compat.vault.places import folder_of, secret_resource
from keyturn.errors import ConflictError, InputError, NotFoundError
from keyturn.http.body import printable
from keyturn.vault.gone import VersionGoneError
from keyturn.wire.actions import Action
from keyturn.wire.secrets import VERSIONS_MAX_DEFAULT, PatchSecret, PutSecret, SelectVersions

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.places import Places
    from keyturn.compat.vault.routing import Table
    from keyturn.vault.reading import SecretReader
    from keyturn.vault.service import VaultService
    from keyturn.wire.secrets import SecretInfo, SecretWritten

T = TypeVar("T")

CAS_MISMATCH: Final = "check-and-set parameter did not match the current version"
CAS_REQUIRED: Final = "check-and-set parameter required for this call"
NO_DATA: Final = "no data provided"
NO_VERSIONS: Final = "No version number provided"
_USER_AGENT_CHARACTERS: Final = 200


class KvOperations:
    """The routes of a KV mount."""

    def __init__(self, secrets: VaultService, reader: SecretReader, places: Places) -> None:
        """Need what writes secrets, what lets values out, and the places."""
        self._secrets = secrets
        self._reader = reader
        self._places = places

    def table(self) -> Table:
        """Return each route's functions."""
        return {
            "{mount}/config": {"read": self.read_config, "write": self.write_config},
            "{mount}/data/{path*}": {
                "read": self.read,
                "write": self.write,
                "patch": self.patch,
                "delete": self.delete_latest,
            },
            "{mount}/delete/{path*}": {"write": self.delete_versions},
            "{mount}/undelete/{path*}": {"write": self.undelete_versions},
            "{mount}/destroy/{path*}": {"write": self.destroy_versions},
            "{mount}/subkeys/{path*}": {"read": self.subkeys},
            "{mount}/metadata/{path*}": {
                "read": self.read_metadata,
                "list": self.list_names,
                "write": self.write_metadata,
                "patch": self.patch_metadata,
                "delete": self.remove,
            },
        }

    # --- values ------------------------------------------------------------------------------------------------------

    async def read(self, ask: Ask) -> Answer:
        """Let a version out: the current one, unless `version` names another."""
        path = await self._path(ask)
        agent = None if ask.user_agent is None else printable(ask.user_agent)[:_USER_AGENT_CHARACTERS]
        version = ask.number("version") or None
        try:
            value = await self._reader.read(ask.credentials, path, version=version, user_agent=agent)
        except VersionGoneError as error:
            metadata = translation.gone_metadata(error.info, error.metadata)
            return Answer(status=404, data={"data": None, "metadata": metadata})
        except NotFoundError as error:
            raise await self._absent(ask, Action.SECRET_READ, path, error) from None
        return Answer(data={"data": value.fields, "metadata": translation.value_metadata(value)})

    async def write(self, ask: Ask) -> Answer:
        """Write a version."""
        path = await self._path(ask)
        body = ask.fields(DataBody)
        if body.data is None:
            raise RefusedAs(400, NO_DATA)
        request = _checked({"fields": body.data, "cas": _cas(body)}, PutSecret)
        with_reason = self._secrets.put(ask.credentials, path, request)
        written = await self._cas_worded(ask, Action.SECRET_PUT, path, with_reason)
        return Answer(data=translation.written_metadata(written))

    async def patch(self, ask: Ask) -> Answer:
        """Write the current version, merged with what came, as a new one."""
        path = await self._path(ask)
        body = ask.fields(DataBody)
        if body.data is None:
            raise RefusedAs(400, NO_DATA)
        cas = _cas(body)
        if cas == 0:
            raise RefusedAs(400, CAS_MISMATCH)
        request = _checked({"fields": body.data, "cas": cas}, PatchSecret)
        with_reason = self._secrets.patch(ask.credentials, path, request)
        written = await self._cas_worded(ask, Action.SECRET_PUT, path, with_reason)
        return Answer(data=translation.written_metadata(written))

    async def subkeys(self, ask: Ask) -> Answer:
        """Name the fields of a version, each with null; what lies inside of them is not told."""
        path = await self._path(ask)
        info = await self._shown(ask, path)
        wanted = ask.number("version") or info.current_version
        found = next((one for one in info.versions if one.number == wanted), None)
        if found is None:
            raise RefusedAs(404)
        if found.deleted_at is not None or found.destroyed_at is not None:
            metadata = translation.gone_metadata(found, info.metadata)
            return Answer(status=404, data={"subkeys": None, "metadata": metadata})
        metadata = translation.gone_metadata(found, info.metadata)
        return Answer(data={"subkeys": dict.fromkeys(found.fields), "metadata": metadata})

    # --- deletion ----------------------------------------------------------------------------------------------------

    async def delete_latest(self, ask: Ask) -> Answer:
        """Delete the current version softly."""
        path = await self._path(ask)
        work = self._secrets.delete(ask.credentials, path, SelectVersions(), missing_ok=True)
        return await self._or_nothing(ask, Action.SECRET_DELETE, path, work)

    async def delete_versions(self, ask: Ask) -> Answer:
        """Delete versions softly."""
        path = await self._path(ask)
        work = self._secrets.delete(ask.credentials, path, _selected(ask), missing_ok=True)
        return await self._or_nothing(ask, Action.SECRET_DELETE, path, work)

    async def undelete_versions(self, ask: Ask) -> Answer:
        """Take soft deletions back, and pass over versions that were destroyed."""
        path = await self._path(ask)
        work = self._secrets.undelete(ask.credentials, path, _selected(ask), missing_ok=True)
        return await self._or_nothing(ask, Action.SECRET_UNDELETE, path, work)

    async def destroy_versions(self, ask: Ask) -> Answer:
        """Forget what versions hold."""
        path = await self._path(ask)
        work = self._secrets.destroy(ask.credentials, path, _selected(ask), missing_ok=True)
        return await self._or_nothing(ask, Action.SECRET_DESTROY, path, work)

    async def remove(self, ask: Ask) -> Answer:
        """Forget every version, and the secret."""
        path = await self._path(ask)
        return await self._or_nothing(ask, Action.SECRET_REMOVE, path, self._secrets.remove(ask.credentials, path))

    # --- metadata ----------------------------------------------------------------------------------------------------

    async def read_metadata(self, ask: Ask) -> Answer:
        """Show a secret and its versions."""
        return Answer(data=translation.secret_metadata(await self._shown(ask, await self._path(ask))))

    async def list_names(self, ask: Ask) -> Answer:
        """Name what lies directly below a folder; 404 when that is nothing."""
        place = await self._places.of_mount(ask)
        rest = ask.parts["path"]
        folder = place.path(rest) if rest else place.environment
        names = (await self._secrets.names(ask.credentials, folder + "/")).names
        if not names:
            raise await self._places.refuse_absent(ask, Action.SECRET_LIST, folder_of(folder))
        return Answer(data={"keys": list(names)})

    async def write_metadata(self, ask: Ask) -> Answer:
        """Change what is told of a secret, and make one without a version where there is none."""
        path = await self._path(ask)
        describe = translation.describe(ask.fields(MetadataBody), ask.body)
        try:
            await self._secrets.describe(ask.credentials, path, describe, create=True)
        except NotFoundError as error:
            raise await self._absent(ask, Action.SECRET_UPDATE, path, error) from None
        return NOTHING

    async def patch_metadata(self, ask: Ask) -> Answer:
        """Change what is told of a secret; custom metadata is merged, and null takes an entry away."""
        path = await self._path(ask)
        held = (await self._shown(ask, path)).metadata
        describe = translation.describe(ask.fields(MetadataBody), ask.body, merged_into=held)
        try:
            await self._secrets.describe(ask.credentials, path, describe)
        except NotFoundError as error:
            raise await self._absent(ask, Action.SECRET_UPDATE, path, error) from None
        return NOTHING

    # --- the mount ---------------------------------------------------------------------------------------------------

    async def read_config(self, ask: Ask) -> Answer:
        """Tell what holds for every secret of a mount: nothing but how many versions are kept."""
        await self._places.require_caller(ask)
        await self._places.of_mount(ask)
        config = {"cas_required": False, "delete_version_after": "0s", "max_versions": VERSIONS_MAX_DEFAULT}
        return Answer(data=config)

    async def write_config(self, ask: Ask) -> Answer:
        """Accept what is so already; anything else is set on each secret, not on a mount."""
        await self._places.require_caller(ask)
        await self._places.of_mount(ask)
        body = ask.fields(ConfigBody)
        if body.cas_required or durations.seconds(body.delete_version_after, "delete_version_after"):
            raise InputError(
                "cas_required and delete_version_after are set on each secret, not on a mount",
                hint="write them to <mount>/metadata/<path>",
            )
        if body.max_versions not in {None, 0, VERSIONS_MAX_DEFAULT}:
            return NOTHING.warned(
                f"max_versions is set on each secret; those of this mount keep {VERSIONS_MAX_DEFAULT} versions"
            )
        return NOTHING

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _path(self, ask: Ask) -> str:
        if not ask.parts["path"]:
            raise RefusedAs(400, "missing path")
        return (await self._places.of_mount(ask)).path(ask.parts["path"])

    async def _shown(self, ask: Ask, path: str) -> SecretInfo:
        try:
            return await self._secrets.show(ask.credentials, path)
        except NotFoundError as error:
            raise await self._absent(ask, Action.SECRET_LIST, path, error) from None

    async def _absent(self, ask: Ask, action: Action, path: str, error: NotFoundError) -> Exception:
        if error.code in translation.GONE_CODES:
            return RefusedAs(404)
        return await self._places.refuse_absent(ask, action, secret_resource(path))

    async def _or_nothing(self, ask: Ask, action: Action, path: str, work: Awaitable[object]) -> Answer:
        """Answer 204 whether or not there was anything to do, to a caller who may do it."""
        try:
            await work
        except NotFoundError as error:
            refused = await self._absent(ask, action, path, error)
            if not (isinstance(refused, RefusedAs) and refused.status == 404):
                raise refused from None
        return NOTHING

    async def _cas_worded(self, ask: Ask, action: Action, path: str, work: Awaitable[SecretWritten]) -> SecretWritten:
        """Await a write, with the refusals of check-and-set in the words that clients look for."""
        try:
            return await work
        except NotFoundError as error:
            raise await self._absent(ask, action, path, error) from None
        except ConflictError as error:
            if error.code == "cas_mismatch":
                raise RefusedAs(400, CAS_MISMATCH) from None
            raise
        except InputError as error:
            if error.code == "cas_required":
                raise RefusedAs(400, CAS_REQUIRED) from None
            raise


def _cas(body: DataBody) -> int | None:
    given = (body.options or {}).get("cas")
    if given is None:
        return None
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 10:
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**31:
        raise InputError("error parsing check-and-set parameter", field="options.cas")
    return given


def _selected(ask: Ask) -> SelectVersions:
    body = ask.fields(VersionsBody)
    numbers = translation.numbers(body.versions)
    if not numbers:
        raise RefusedAs(400, NO_VERSIONS)
    return _checked({"versions": numbers}, SelectVersions)


def _checked(values: dict[str, Any], kind: type[T]) -> T:
    """Build a request of ours within its bounds; raises InputError."""
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what = printable(str(error)).replace("`", "").replace("$.fields", "data").replace("$.", "")
        raise InputError(what) from None
