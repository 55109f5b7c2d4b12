"""The guard against requests into networks that are not meant to be reached (SSRF).

An address is reachable when the operator allowed its network, or when it is global and of the plain internet:

    refused    this host and network, private, shared (CGNAT), loopback, link-local, metadata services, documentation,
               benchmarks, multicast, reserved; every IPv6 range that carries an IPv4 address inside (6to4, Teredo,
               NAT64, IPv4-compatible); everything outside 2000::/3
    judged     an IPv4-mapped IPv6 address, as the IPv4 address it is

Names are never judged, only what they resolve to, at each attempt: all answers must pass, and the connection goes to
one of them.  Plain http is for allowed networks alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from keyturn.errors import InputError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_LENGTH_MAX: Final = 2048
ANSWERS_MAX: Final = 64
SETTING: Final = "KEYTURN_WEBHOOK_ALLOW"
_URL: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9.])?|[0-9A-Fa-f:.]{2,45}")

_REFUSED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a metadata service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "for benchmarks"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::/96", "an IPv4 address in disguise"),
        ("64:ff9b::/96", "an IPv4 address in disguise (NAT64)"),
        ("64:ff9b:1::/48", "an IPv4 address in disguise (NAT64)"),
        ("2001::/32", "an IPv4 address in disguise (Teredo)"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "for documentation"),
        ("2002::/16", "an IPv4 address in disguise (6to4)"),
        ("3fff::/20", "for documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
_INTERNET_6: Final = ipaddress.ip_network("2000::/3")


class GuardError(Exception):
    """A connection that may not be made; the message is public and names no address that was resolved."""


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint's address, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    """What is asked for: path and query."""


def refusal(text: str, allowed: Sequence[Network] = ()) -> str | None:
    """Return why an IP address may not be talked to, None when it may; text that is no address is refused."""
    address = _address(text)
    if address is None:
        return "not an address"
    if _within(address, allowed):
        return None
    for network, reason in _REFUSED:
        if address.version == network.version and address in network:
            return reason
    if address.version == 6 and address not in _INTERNET_6:
        return "reserved"
    return None


def is_address(text: str) -> bool:
    """Tell whether the text is an IP address, and not a name."""
    return _address(text) is not None


def is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """Tell whether the operator has listed a network that this address is in."""
    address = _address(text)
    return address is not None and _within(address, allowed)


def check_answers(
    answers: Iterable[str], *, scheme: str, allowed: Sequence[Network], setting: str = SETTING
) -> list[str]:
    """Return the addresses of a name, every one of them checked; raises GuardError for the first that is refused."""
    found = list(dict.fromkeys(answers))
    if not found or len(found) > ANSWERS_MAX:
        raise GuardError("the name has no address" if not found else "the name has too many addresses")
    for one in found:
        reason = refusal(one, allowed)
        if reason is not None:
            raise GuardError(f"the name leads to an address that is {reason}")
        if scheme != "https" and not is_allowed(one, allowed):
            raise GuardError(f"http is for networks listed in {setting} alone")
    return found


def parse_url(url: str, allowed: Sequence[Network] = (), *, setting: str = SETTING) -> Target:
    """Take an endpoint's address apart; raises InputError for one that could never be delivered to.

    `setting` is the one that lists allowed networks.  What can be seen without the network is refused here already:
    other schemes, credentials, an address literal that the guard refuses.
    """
    if len(url) > URL_LENGTH_MAX or _URL.fullmatch(url) is None or "\\" in url:
        raise _invalid(f"expected at most {URL_LENGTH_MAX} visible ASCII characters", "percent-encode what is special")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _invalid("expected an address such as https://hooks.example.com/keyturn") from None
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or _HOST.fullmatch(host) is None or ".." in host or port == 0:
        raise _invalid("expected an address such as https://hooks.example.com/keyturn")
    if "@" in parts.netloc or "#" in url:
        raise _invalid("expected no user, password or fragment")
    if parts.scheme == "http" and not allowed:
        raise _invalid("expected https", f"http is for networks listed in {setting} alone")
    if _address(host) is not None:
        try:
            check_answers([host], scheme=parts.scheme, allowed=allowed)
        except GuardError:
            raise _invalid(
                f"{host} may not be talked to: {refusal(host, allowed) or 'http is for listed networks alone'}",
                f"list its network in {setting} if it is meant to be reached",
            ) from None
    path = parts.path or "/"
    return Target(
        parts.scheme,
        host,
        port or (443 if parts.scheme == "https" else 80),
        f"{path}?{parts.query}" if parts.query else path,
    )


def _address(text: str) -> Address | None:
    """Return the address, an IPv4-mapped one as IPv4; None for what is none, or has a zone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _invalid(message: str, hint: str | None = None) -> InputError:
    return InputError(message, field="url", hint=hint)
