"""What a request of this surface asks: verb, path, words of the query, fields of the body; pure but for reading bytes.

    LIST, GET ?list=true -> list      GET -> read      POST, PUT -> write      PATCH -> patch      DELETE -> delete

The path is read from the bytes that were sent and decoded once.  One over which two servers could disagree (encoded
slashes, dot segments, `//`) is refused before anything is looked up.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from keyturn.access.caller import Credentials
from keyturn.errors import InputError, UnauthenticatedError
from keyturn.http.body import printable
from keyturn.http.peer import header
from keyturn.kernel.secret import Secret
from keyturn.verify.paths import normal_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.http.lanes import Scope

T = TypeVar("T")
Verb = Literal["read", "list", "write", "patch", "delete"]

PREFIX: Final = "/v1/"
_VERBS: Final[dict[str, Verb]] = {
    "GET": "read",
    "HEAD": "read",
    "LIST": "list",
    "POST": "write",
    "PUT": "write",
    "PATCH": "patch",
    "DELETE": "delete",
}
_TRUE: Final = frozenset({"1", "t", "true"})
_FALSE: Final = frozenset({"", "0", "f", "false"})
_TOKEN_CHARACTERS_MAX: Final = 512
_QUERY_WORDS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, understood as far as every route understands it."""

    verb: Verb
    path: str
    """What stands behind `/v1/`, without a `/` at the end."""
    parts: Mapping[str, str]
    """What the route's template has names for."""
    query: Mapping[str, str]
    body: Mapping[str, Any]
    token: Secret | None
    ip: str | None
    request_id: str
    user_agent: str | None = None
    namespace: str | None = None
    """The workspace in `X-Vault-Namespace`."""
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    wrap_seconds: int = 0
    """What `X-Vault-Wrap-TTL` asks for; 0 when nothing is to be wrapped."""
    proxied: bool = False
    """Whether the connection came from a listed proxy."""

    @property
    def credentials(self) -> Credentials:
        """The caller's; raises UnauthenticatedError when no token came along."""
        if self.token is None:
            raise UnauthenticatedError("no token was presented", hint="send it as `X-Vault-Token`")
        return Credentials(self.token, self.ip, self.request_id)

    def fields(self, kind: type[T]) -> T:
        """Read the body as `kind`, whose unknown fields are left aside; raises InputError naming a field."""
        try:
            return msgspec.convert(dict(self.body), kind, strict=False)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$.")
            name = where.removesuffix("`")
            message = printable(what).replace("`", "")
            raise InputError(f"{printable(name)}: {message}" if name else message, field=name or None) from None

    def number(self, name: str) -> int | None:
        """Return a word of the query as a whole number, None when it is absent; raises InputError."""
        text = self.query.get(name)
        if text is None or text == "":
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise InputError(f"{name}: expected a whole number", field=name)
        return int(text)


def verb_of(method: str, query: Mapping[str, str]) -> Verb | None:
    """Return what a method asks for, None when nothing here has it."""
    verb = _VERBS.get(method)
    return "list" if verb == "read" and method != "HEAD" and flag(query, "list") else verb


def path_of(scope: Scope) -> str:
    """Return the decoded path behind `/v1/`; raises InputError for one that is not clean."""
    raw = scope.get("raw_path") or str(scope["path"]).encode()
    clean = normal_path(raw.decode("latin-1"))
    if clean is None or not clean.startswith(PREFIX):
        raise InputError("the path holds an encoded slash, a dot segment or something else that is not plain")
    return clean.removeprefix(PREFIX).removesuffix("/")


def query_of(scope: Scope) -> dict[str, str]:
    """Return the words of the query; of a repeated one the first counts.  Raises InputError."""
    raw: bytes = scope.get("query_string") or b""
    if not raw:
        return {}
    try:
        words = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_QUERY_WORDS_MAX, errors="strict")
    except ValueError:
        raise InputError("the query cannot be read", field="query") from None
    found: dict[str, str] = {}
    for name, value in words:
        found.setdefault(name, value)
    return found


def flag(query: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Return a word of the query as yes or no; raises InputError."""
    text = query.get(name)
    if text is None:
        return default
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise InputError(f"{name}: expected true or false", field=name)
    return lowered in _TRUE


def token_of(scope: Scope) -> Secret | None:
    """Return the token of `X-Vault-Token`, or of `Authorization: Bearer`; None when there is none that could be.

    Two headers of one name are no token: which of them counts is what two servers could disagree over.
    """
    found = _all_of(scope, b"x-vault-token")
    if not found:
        parted = [value.partition(b" ") for value in _all_of(scope, b"authorization")]
        found = [token for scheme, _, token in parted if scheme.lower() == b"bearer"] if len(parted) == 1 else []
    given = found[0].strip() if len(found) == 1 else b""
    if not given or len(given) > _TOKEN_CHARACTERS_MAX or not given.isascii():
        return None
    return Secret(given)


def is_listed(scope: Scope, proxies: tuple[Any, ...]) -> bool:
    """Tell whether the connection came from a listed proxy."""
    client = scope.get("client")
    if not proxies or not client:
        return False
    try:
        peer = ipaddress.ip_address(client[0].removeprefix("::ffff:") if "." in client[0] else client[0])
    except ValueError:
        return False
    return any(peer in network for network in proxies)


def text_header(scope: Scope, name: bytes) -> str | None:
    """Return a header as text, None when it is absent or empty."""
    value = header(scope["headers"], name)
    return value.decode("latin-1").strip() or None if value is not None else None


def _all_of(scope: Scope, name: bytes) -> list[bytes]:
    return [value for given, value in scope["headers"] if given == name]
