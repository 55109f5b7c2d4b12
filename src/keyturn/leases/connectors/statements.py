"""Templates of statements: `{{name}}`, `{{password}}` and `{{expiration}}`, each quoted by us.

A placeholder stands bare, and is quoted as its value needs, or right inside quotes, which are kept.  Values are
letters, digits and a few marks, so that nothing in them ends a quotation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from keyturn.errors import BrokenInvariantError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLACEHOLDER: Final = re.compile(r"(?P<before>[\"'`]?)\{\{\s*(?P<name>[^{}]*?)\s*\}\}(?P<after>[\"'`]?)")
_SAFE: Final = re.compile(r"[A-Za-z0-9_+/=$:.,TZ -]{1,512}")


def check(statements: Sequence[str], field: str, *, knows: Sequence[str], needs: Sequence[str] = ()) -> None:
    """Raise InputError for a placeholder that is half quoted, none of `knows`, or one of `needs` and missing."""
    used: set[str] = set()
    for number, statement in enumerate(statements):
        for found in _PLACEHOLDER.finditer(statement):
            if found["name"] not in knows:
                known = ", ".join(f"{{{{{name}}}}}" for name in sorted(knows))
                raise InputError(f"expected one of {known} between braces", field=f"{field}[{number}]")
            if found["before"] != found["after"]:
                raise InputError(
                    f"{{{{{found['name']}}}}} has a quote on one side only",
                    field=f"{field}[{number}]",
                    hint="write it bare, or right inside quotes",
                )
            used.add(found["name"])
    missing = [name for name in needs if name not in used]
    if statements and missing:
        raise InputError(f"expected {{{{{missing[0]}}}}} in the statements", field=field)


def render(statement: str, values: Mapping[str, str], *, name_quote: str) -> str:
    """Fill a statement in; a bare `{{name}}` gets `name_quote` around it, anything else single quotes."""

    def filled(found: re.Match[str]) -> str:
        value = values.get(found["name"])
        if value is None or _SAFE.fullmatch(value) is None:
            message = "a value of a statement cannot be quoted"
            raise BrokenInvariantError(message)
        quote = found["before"] or (name_quote if found["name"] == "name" else "'")
        return f"{quote}{value}{quote}"

    return _PLACEHOLDER.sub(filled, statement)
