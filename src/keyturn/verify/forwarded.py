"""The address of a caller behind proxies: `X-Forwarded-For` counts only as far as listed proxies vouch for it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def forwarded_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """Return the address of the caller's machine.

    `peer` is who the connection is from, `forwarded` every `X-Forwarded-For` value joined by commas.  Behind a listed
    proxy it is the last address that is not itself a listed proxy; what is not an address ends the chain.
    """
    address = _plain(peer)
    if not trusted or not _within(address, trusted):
        return address
    for candidate in reversed(forwarded.split(",")):
        named = _address(candidate.strip())
        if named is None:
            return address
        address = named
        if not _within(address, trusted):
            return address
    return address


def vouched_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str | None:
    """Return the address that a listed proxy says its request is from, None when nobody listed says so.

    Unlike `forwarded_address` it never falls back on the peer, which is the proxy itself.
    """
    if not _within(_plain(peer), trusted) or _address(forwarded.rpartition(",")[2].strip()) is None:
        return None
    return forwarded_address(peer, forwarded, trusted)


def _address(text: str) -> str | None:
    # An address may come with a port: 192.0.2.1:4711, [2001:db8::1]:4711.
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _plain(address: str) -> str:
    # An IPv4 peer of a dual-stack socket.
    return address.removeprefix("::ffff:") if "." in address else address


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)


def is_listed(peer: str | None, trusted: Sequence[Network]) -> bool:
    """Tell whether the machine at the other end of the connection is itself a listed proxy."""
    return peer is not None and bool(trusted) and _within(_plain(peer), trusted)
