"""Lists of secrets: by prefix in pages, or what lies directly below a folder; only what the caller may list.

Nothing tells a folder that holds nothing from one that holds nothing for this caller.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from keyturn.access.paging import EXAMINED_MAX, SEALED, place_after, sealed_cursor
from keyturn.errors import InputError
from keyturn.vault import store
from keyturn.vault.answers import secret_info
from keyturn.vault.paths import Path, check_environment, folder_resource, parse_folder
from keyturn.wire.actions import Action
from keyturn.wire.secrets import PATH_CHARACTERS_MAX, SecretNames, SecretPage

if TYPE_CHECKING:
    from keyturn.access.door import Operation
    from keyturn.vault.model import Secret

FETCHED: Final = 200
NOUN: Final = "secret"

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.@+=/-]*")
_BELOW_ALL: Final = "/\x7f"
"""What follows a folder's name after everything that lies in it."""


def list_page(op: Operation, prefix: str, cursor: str | None, limit: int) -> SecretPage:
    """Return the next secrets by path whose paths begin so; a page may be short and still have a next one."""
    check_prefix(prefix)
    after = place_after(op, cursor) if cursor and cursor.startswith(SEALED) else _decode_cursor(cursor)
    within = op.reach(Action.SECRET_LIST, NOUN)
    found: list[Secret] = []
    examined, more = 0, within != ()
    while more and len(found) <= limit and examined < EXAMINED_MAX:
        rows = store.list_secrets(op.connection, op.workspace, prefix, after, FETCHED, within=within)
        more = len(rows) == FETCHED
        examined += len(rows)
        found.extend(one for one in rows if op.allows(Action.SECRET_LIST, one.resource))
        after = rows[-1].path if rows else after
    shown = found[:limit]
    oldest = store.oldest_numbers(op.connection, shown)
    following = sealed_cursor(op, after) if more else None
    return SecretPage(
        items=tuple(secret_info(one, oldest.get(one.id, 0)) for one in shown),
        next_cursor=_encode_cursor(shown[-1].path) if len(found) > limit else following,
    )


def names_below(op: Operation, folder: str) -> SecretNames:
    """Name what lies directly below a folder, or the environments for none; folders end with `/`."""
    inside = parse_folder(folder) if folder.strip("/") else ""
    found: set[str] = set()
    after = inside
    within = op.reach(Action.SECRET_LIST, NOUN)
    while paths := store.next_paths(op.connection, op.workspace, inside, after, FETCHED, within=within):
        after = paths[-1]
        for path in paths:
            name, slash, _ = path[len(inside) :].partition("/")
            if name + slash not in found and _is_visible(op, inside + name, path, is_folder=bool(slash)):
                found.add(name + slash)
        last, slash, _ = after[len(inside) :].partition("/")
        if slash and last + slash in found:
            after = inside + last + _BELOW_ALL
    return SecretNames(names=tuple(sorted(found)))


def check_prefix(prefix: str) -> None:
    """Raise InputError for what no path begins with."""
    if len(prefix) > PATH_CHARACTERS_MAX or _PREFIX.fullmatch(prefix) is None:
        raise InputError(
            "the prefix holds what no path does", field="prefix", hint="for example production/ or production/pay"
        )
    if "/" in prefix:
        check_environment(prefix.partition("/")[0])


def _is_visible(op: Operation, name: str, path: str, *, is_folder: bool) -> bool:
    if is_folder and op.allows(Action.SECRET_LIST, folder_resource(name)):
        return True
    return op.allows(Action.SECRET_LIST, Path(path).resource)


def _encode_cursor(path: str) -> str:
    return base64.urlsafe_b64encode(path.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        decoded = "\0"
    if not decoded or len(decoded) > PATH_CHARACTERS_MAX or _PREFIX.fullmatch(decoded) is None:
        raise InputError("the cursor is not one that a list returned", field="cursor", hint="start from the first page")
    return decoded
