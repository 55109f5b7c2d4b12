"""A value that does not print itself, the system's randomness, and constant-time comparison.

`Secret` is the only way a key, password or token travels through the code.
Its `repr`, `str` and formatted forms are the same fixed text, it cannot be pickled or hashed, and it holds no public
attribute; the one way to the value is to call `reveal`, which can be searched for.
Python cannot erase memory: the value stays in the process until it is collected and its memory is reused.
"""

from __future__ import annotations

import hmac
import os
from typing import Final, NoReturn, final

BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MASK: Final = "[secret]"

# Bytes 0-247 fall on the 62 characters evenly (248 = 4 * 62); 248-255 are drawn again, or 8 would be likelier.
_FAIR_BYTES: Final = 248
_TO_BASE62: Final = bytes(ord(BASE62[byte % 62]) for byte in range(256))
_UNFAIR: Final = bytes(range(_FAIR_BYTES, 256))


@final
class Secret:
    """Text or bytes that only `reveal` and `reveal_bytes` give away.

    Two secrets are equal when their bytes are; the comparison takes the same time wherever they differ.
    A secret equals nothing that is not a `Secret`.
    """

    __slots__ = ("_value",)

    _value: bytes

    def __init__(self, value: str | bytes) -> None:
        """Hold the value; text is held as UTF-8."""
        # surrogatepass: an encoding error would carry the value out in its `object` attribute.
        self._value = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)

    def reveal(self) -> str:
        """Return the value as text; raises ValueError when it is not UTF-8."""
        text = _decoded(self._value)
        if text is None:
            raise ValueError("expected a secret of UTF-8 text, found other bytes")
        return text

    def reveal_bytes(self) -> bytes:
        """Return the value as bytes."""
        return self._value

    def __repr__(self) -> str:
        """Return the same mask for every value."""
        return MASK

    def __str__(self) -> str:
        """Return the same mask for every value."""
        return MASK

    def __format__(self, spec: str) -> str:
        """Return the mask, formatted as text."""
        return format(MASK, spec)

    def __len__(self) -> int:
        """Return the length in bytes."""
        return len(self._value)

    def __bool__(self) -> bool:
        """Tell whether there is any value."""
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time with another secret."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    # A hash is a fingerprint that ends up in sets, caches and their reprs.
    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Secret:
        """Return the same immutable object."""
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        """Return the same immutable object."""
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled."""
        raise TypeError("a Secret cannot be pickled; seal it with keyturn.kernel.envelope instead")


def random_bytes(length: int) -> bytes:
    """Return bytes from the system CSPRNG."""
    return os.urandom(length)


def random_base62(length: int) -> str:
    """Return uniformly random characters of `0-9A-Za-z` from the system CSPRNG, 5.95 bits each."""
    drawn = b""
    while len(drawn) < length:
        # One byte in 32 is refused; an eighth more than needed nearly always suffices.
        drawn += os.urandom(length + length // 8 + 4).translate(_TO_BASE62, _UNFAIR)
    return drawn[:length].decode("ascii")


def constant_time_equal(a: bytes, b: bytes) -> bool:
    """Compare bytes in a time that depends on their lengths only."""
    return hmac.compare_digest(a, b)


def _decoded(value: bytes) -> str | None:
    # Returns None instead of raising: the error, even as a context, would hold the value.
    try:
        return value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
