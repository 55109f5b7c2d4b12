"""Client addresses against CIDR lists, with integers and masks.

    10.0.0.0/8   2001:db8::/32   192.0.2.7        one address is a network of one
    ::ffff:192.0.2.7                              an IPv4-mapped address is the IPv4 address, in lists and requests
    ::/0                                          all of IPv6, nothing of IPv4

Addresses are read as strictly as `inet_pton` does: no leading zeros, no short forms, no zone, no port.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAPPED: Final = bytes(10) + b"\xff\xff"
_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,2}")

Network = tuple[int, int, int]
"""Family (4 or 6), network address, number of leading bits."""


def parse_network(text: str) -> Network:
    """Read `address` or `address/length`; raises ValueError that says what was expected."""
    address, slash, written = text.partition("/")
    family, number, bits = _address(address)
    if not slash:
        length = bits
    elif _LENGTH.fullmatch(written) and int(written) <= bits:
        length = int(written)
    else:
        raise ValueError(f"expected a prefix length of 0-{bits} after the /")
    if number & ((1 << (bits - length)) - 1):
        raise ValueError(f"expected a network address, found bits set beyond /{length}")
    if family == 6 and length >= 96 and number >> 32 == 0xFFFF:
        return 4, number & 0xFFFFFFFF, length - 96
    return family, number, length


def _address(text: str) -> Network:
    try:
        if ":" in text:
            return 6, int.from_bytes(inet_pton(AF_INET6, text)), 128
        return 4, int.from_bytes(inet_pton(AF_INET, text)), 32
    except (OSError, ValueError):
        raise ValueError("expected an IPv4 or IPv6 address, optionally with /length") from None


class Networks:
    """A set of networks, grouped by family and prefix length: one mask and one look-up per length."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[Network]) -> None:
        """Group the networks; an empty set contains nothing."""
        known = frozenset(networks)
        self._v4 = _by_mask(known, 4, 32)
        self._v6 = _by_mask(known, 6, 128)

    def contain(self, ip: str | None) -> bool:
        """Say whether the address lies in one of the networks; what is not an address lies in none."""
        if ip is None:
            return False
        try:
            if ":" not in ip:
                number = int.from_bytes(inet_pton(AF_INET, ip))
                groups = self._v4
            else:
                packed = inet_pton(AF_INET6, ip)
                mapped = packed.startswith(_MAPPED)
                number = int.from_bytes(packed[12:] if mapped else packed)
                groups = self._v4 if mapped else self._v6
        except (OSError, ValueError):
            return False
        for mask, networks in groups:  # noqa: SIM110 -- twice as fast as any() on the hot path
            if number & mask in networks:
                return True
        return False


def _by_mask(networks: frozenset[Network], family: int, bits: int) -> tuple[tuple[int, frozenset[int]], ...]:
    lengths = sorted({length for of, _, length in networks if of == family})
    return tuple(
        (
            ((1 << length) - 1) << (bits - length),
            frozenset(number for of, number, own in networks if of == family and own == length),
        )
        for length in lengths
    )
