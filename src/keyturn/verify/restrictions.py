"""Restrictions: where and how a key may be used, compiled once.

    cidrs      the client's address lies in one        `keyturn.verify.networks`
    origins    the Origin or Referer is one            `keyturn.verify.origins`
    endpoints  method and path are one of the pairs    `keyturn.verify.paths`

Every list that is not empty must be satisfied, by one entry each.  An input that is absent or cannot be read
denies, and so does a restriction of a kind that this version does not know.

`check_restrictions` is for whoever writes restrictions: it names the field that is wrong.  `compile_restrictions`
is for whoever enforces them and never raises: an entry that cannot be read allows nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from keyturn.errors import InputError
from keyturn.verify.networks import Networks, parse_network
from keyturn.verify.origins import Origins, parse_origin
from keyturn.verify.paths import Endpoints, parse_methods, parse_path
from keyturn.wire.policy import MethodPath, Restrictions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from keyturn.verify.model import Request

CIDR: Final = "cidr"
ORIGIN: Final = "origin"
ENDPOINT: Final = "endpoint"
UNKNOWN: Final = "unknown_restriction"

ENTRIES_MAX: Final = 256
"""How many entries one list may have when it is written."""

_KNOWN: Final = frozenset({"cidrs", "origins", "endpoints"})

Entry = TypeVar("Entry")
Parsed = TypeVar("Parsed")


class Checker:
    """Restrictions, compiled; keys with equal restrictions share one."""

    __slots__ = ("_endpoints", "_networks", "_origins", "_unknown")

    def __init__(
        self, networks: Networks | None, origins: Origins | None, endpoints: Endpoints | None, *, unknown: bool
    ) -> None:
        """Hold the compiled lists, None for those that are absent; `unknown` denies everything."""
        self._networks = networks
        self._origins = origins
        self._endpoints = endpoints
        self._unknown = unknown

    def failure(self, request: Request) -> str | None:
        """Return the name of the first restriction that the request does not satisfy, or None."""
        if self._networks is not None and not self._networks.contain(request.ip):
            return CIDR
        if self._origins is not None and not self._origins.contain(request.origin):
            return ORIGIN
        if self._endpoints is not None and not self._endpoints.contain(request.method, request.path):
            return ENDPOINT
        return UNKNOWN if self._unknown else None

    def verdicts(self, request: Request) -> list[tuple[str, bool, str | None]]:
        """Return name, outcome and detail of every restriction that is present, in the order of `failure`."""
        found: list[tuple[str, bool, str | None]] = []
        if self._networks is not None:
            found.append((CIDR, self._networks.contain(request.ip), _absent(ip=request.ip)))
        if self._origins is not None:
            found.append((ORIGIN, self._origins.contain(request.origin), _absent(origin=request.origin)))
        if self._endpoints is not None:
            allowed = self._endpoints.contain(request.method, request.path)
            found.append((ENDPOINT, allowed, _absent(method=request.method, path=request.path)))
        if self._unknown:
            found.append((UNKNOWN, False, "a restriction of a kind that this version does not know"))
        return found


def _absent(**inputs: str | None) -> str | None:
    missing = [name for name, value in inputs.items() if value is None]
    return f"the request does not tell {' and '.join(missing)}" if missing else None


def compile_restrictions(restrictions: Restrictions | None) -> Checker | None:
    """Compile for enforcement; None when nothing is restricted.  Never raises."""
    if restrictions is None:
        return None
    unknown = any(getattr(restrictions, name) for name in restrictions.__struct_fields__ if name not in _KNOWN)
    cidrs, origins, endpoints = restrictions.cidrs, restrictions.origins, restrictions.endpoints
    if not (unknown or cidrs or origins or endpoints):
        return None
    return Checker(
        Networks(_readable(parse_network, cidrs)) if cidrs else None,
        Origins(_readable(parse_origin, origins)) if origins else None,
        Endpoints(_readable(_parse_endpoint, endpoints)) if endpoints else None,
        unknown=unknown,
    )


def _parse_endpoint(endpoint: MethodPath) -> tuple[frozenset[str], str]:
    return parse_methods(endpoint.methods), parse_path(endpoint.path)


def _readable(parse: Callable[[Entry], Parsed], entries: Iterable[Entry]) -> list[Parsed]:
    found = []
    for entry in entries:
        try:
            found.append(parse(entry))
        except ValueError:
            continue
    return found


def check_restrictions(restrictions: Restrictions) -> None:
    """Raise InputError naming the field, e.g. `restrictions.cidrs[2]`, unless every entry can be enforced."""
    _check("cidrs", restrictions.cidrs, parse_network)
    _check("origins", restrictions.origins, parse_origin)
    for at, endpoint in enumerate(_check_size("endpoints", restrictions.endpoints)):
        _attempt(f"restrictions.endpoints[{at}].methods", parse_methods, endpoint.methods)
        _attempt(f"restrictions.endpoints[{at}].path", parse_path, endpoint.path)


def _check(name: str, entries: tuple[str, ...], parse: Callable[[str], object]) -> None:
    for at, entry in enumerate(_check_size(name, entries)):
        _attempt(f"restrictions.{name}[{at}]", parse, entry)


def _check_size(name: str, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    if len(entries) > ENTRIES_MAX:
        message = f"expected at most {ENTRIES_MAX} entries in {name}, found {len(entries)}"
        raise InputError(message, field=f"restrictions.{name}")
    return entries


def _attempt(field: str, parse: Callable[[Entry], object], entry: Entry) -> None:
    try:
        parse(entry)
    except ValueError as error:
        raise InputError(f"{field}: {error}", field=field) from None
