"""Origins and referrers against a list of allowed origins.

    https://app.example.com        exactly this origin: scheme, host, port
    https://*.example.com          one label in place of each `*`; not example.com itself, not a.b.example.com
    http://localhost:3000          a port other than the scheme's own is part of the origin

A Referer URL is reduced to its origin.  Scheme and host compare without case, the scheme's own port and one
trailing dot of the host are dropped.  A `*` replaces a whole label, as in a TLS certificate, and at least two
labels after it are written out, so no pattern takes in a whole top-level domain.

What a browser would read differently than a server does not match anything: user names, backslashes, control
characters, an empty host or port, non-ASCII hosts (browsers send punycode), the opaque origin `null`.
"""

from __future__ import annotations

import re
from socket import AF_INET6, inet_ntop, inet_pton
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

ORIGIN_CHARS_MAX: Final = 2048

_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
_SPLIT: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_*-]+(?:\.[A-Za-z0-9_*-]+)*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?#].*)?",
    re.DOTALL,
)
_WILD_LABELS: Final = re.compile(r"\A(?:\*\.)+")
_PORT_MAX: Final = 65535
_LITERAL_LABELS_MIN: Final = 2


def origin_of(url: str) -> str | None:
    """Reduce an Origin or Referer to its normal origin, or None when it has none that is safe to compare."""
    found = _SPLIT.fullmatch(url) if len(url) <= ORIGIN_CHARS_MAX else None
    return None if found is None or "*" in found["host"] else _normal(found)


def _normal(found: re.Match[str]) -> str | None:
    scheme = found["scheme"].lower()
    host = found["host"].lower().removesuffix(".")
    if host.startswith("["):
        try:
            host = f"[{inet_ntop(AF_INET6, inet_pton(AF_INET6, host[1:-1]))}]"
        except (OSError, ValueError):
            return None
    port = found["port"]
    if port is None:
        return f"{scheme}://{host}"
    number = int(port)
    if not 0 < number <= _PORT_MAX:
        return None
    return f"{scheme}://{host}" if _DEFAULT_PORTS.get(scheme) == str(number) else f"{scheme}://{host}:{number}"


def parse_origin(text: str) -> str:
    """Return the normal form of an allowed origin or pattern; raises ValueError that says what was expected."""
    found = _SPLIT.fullmatch(text) if len(text) <= ORIGIN_CHARS_MAX else None
    if found is None:
        raise ValueError("expected scheme://host or scheme://host:port, in ASCII, * only as a whole label")
    if found["rest"] not in {None, "/"}:
        raise ValueError("expected an origin, found something after the host and port")
    normal = _normal(found)
    if normal is None:
        raise ValueError("expected a port of 1-65535 and a valid host")
    if "*" in normal:
        host = found["host"].removesuffix(".")
        literal = _WILD_LABELS.sub("", host)
        if "*" in literal or host.startswith("[") or literal.count(".") + 1 < _LITERAL_LABELS_MIN:
            raise ValueError("expected each * to be a whole label at the start, with two labels written out after it")
    return normal


class Origins:
    """Allowed origins, compiled from what `parse_origin` returned."""

    __slots__ = ("_exact", "_wild")

    def __init__(self, normal: Iterable[str]) -> None:
        """Separate what is exact from what has a wildcard; an empty list contains nothing."""
        known = frozenset(normal)
        self._exact = frozenset(origin for origin in known if "*" not in origin)
        wild = sorted(re.escape(origin).replace(r"\*", r"[a-z0-9_-]+") for origin in known if "*" in origin)
        self._wild = re.compile("|".join(wild)) if wild else None

    def contain(self, url: str | None) -> bool:
        """Say whether an Origin or Referer is of one of the allowed origins."""
        if url is None:
            return False
        if url in self._exact:
            return True
        origin = origin_of(url)
        if origin is None:
            return False
        return origin in self._exact or (self._wild is not None and self._wild.fullmatch(origin) is not None)
