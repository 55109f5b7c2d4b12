"""How the owner of keys is named in grants: `owner/<name>`, though its name may hold any printable character.

    name                     resource
    billing                  owner/billing
    alice@example.com        owner/alice@example.com
    team/shop                owner/team/shop
    Ada Lovelace             owner/Ada=20Lovelace
    .hidden                  owner/=2Ehidden

A character that a name in a grant cannot have is written as `=` and the two hexadecimal digits of each of its bytes in
UTF-8; so are `=` and `~`, and a separator that nothing stands before or after.  Two owners never share a resource.
A name that would become too long is named by its hash, `owner/==<SHA-256>`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from keyturn.access.caller import Resource
from keyturn.kernel.match import LENGTH_MAX

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@+-]")
_SEPARATORS: Final = frozenset(":./")


def owner_resource(name: str) -> Resource:
    """Return the owner of that name as the resource of a decision."""
    parts: list[str] = []
    for at, character in enumerate(name):
        if _PLAIN.match(character) or (character in _SEPARATORS and _stands_between(name, at)):
            parts.append(character)
        else:
            parts.extend(f"={byte:02X}" for byte in character.encode(errors="surrogatepass"))
    resource = "owner/" + "".join(parts)
    if len(resource) > LENGTH_MAX:
        resource = "owner/==" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return Resource(resource)


def _stands_between(name: str, at: int) -> bool:
    before, after = name[at - 1 : at], name[at + 1 : at + 2]
    return bool(before and after) and before not in _SEPARATORS and after not in _SEPARATORS
