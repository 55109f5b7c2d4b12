"""Text and values without credentials, for logs and error reports: the net below `Secret`.

    found                                              becomes
    anything of the shape of an issued key             [redacted]
    Bearer or Basic and a credential                   Bearer [redacted]
    a PEM block, whole or cut off                      [redacted]
    a `Secret`                                         [redacted]

The shape is taken widely: the check is not asked, and a body of 32 characters or more is enough, so that keys that
were mistyped, cut off or glued to other text are found too.
Whoever logs a credential has made a mistake already; this only keeps it from being written down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from keyturn.kernel.secret import Secret
from keyturn.kernel.tokenformat import PREFIX_PATTERN, TAG_PATTERN

REDACTED: Final = "[redacted]"

_DEPTH_MAX: Final = 16
_CREDENTIAL: Final = re.compile(
    rf"{PREFIX_PATTERN}_{TAG_PATTERN}_[0-9A-Za-z]{{32,}}"
    r"|(?P<scheme>\b(?i:bearer|basic)(?:\s|%20|\+)+)[A-Za-z0-9._~+/=-]{8,}"
    # The end is optional: a block cut off by a log's length limit is a key still.
    r"|-----BEGIN [A-Z0-9 ]+-----(?s:.*?)(?:-----END [A-Z0-9 ]+-----|\Z)",
)


def scrub(text: str) -> str:
    """Return the text with every credential replaced; never raises."""
    return _CREDENTIAL.sub(_replacement, text)


def scrub_value(value: object) -> object:
    """Return the value with credentials replaced in every text inside it, mapping keys included.

    Mappings become dicts, sequences and sets become lists or tuples; numbers, booleans and None stay themselves.
    Any other object stays itself when its `repr` holds no credential, and becomes the scrubbed `repr` when it does.
    What is nested deeper than 16 levels is replaced whole.
    """
    return _scrubbed(value, _DEPTH_MAX)


def _scrubbed(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret) or depth == 0:
        return REDACTED
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {_scrubbed_key(key): _scrubbed(one, depth - 1) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_scrubbed(one, depth - 1) for one in value)
    if isinstance(value, list | AbstractSet):
        return [_scrubbed(one, depth - 1) for one in value]
    shown = repr(value)
    clean = scrub(shown)
    return value if clean == shown else clean


def _scrubbed_key(key: object) -> object:
    if isinstance(key, str):
        return scrub(key)
    shown = repr(key)
    clean = scrub(shown)
    return key if clean == shown else clean


def _replacement(found: re.Match[str]) -> str:
    return (found["scheme"] or "") + REDACTED
