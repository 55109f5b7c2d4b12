"""The token authorities together: each proves the tokens of its own tag, `kt_<tag>_…`.

    kt_mgmt_…    management tokens, of the system keyspaces
    kt_login_…   login tokens, of a table of their own

A token of another tag, or of none, goes to the first authority, which refuses it in the time that any refusal takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from keyturn.kernel.tokenformat import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from keyturn.access.caller import TokenOwner
    from keyturn.access.ports import TokenAuthority

LOGIN_TAG: Final = "login"
_LOGIN_START: Final = f"kt_{LOGIN_TAG}_"


class Authorities:
    """Proves any token that this server gives; implements TokenAuthority."""

    def __init__(self, first: TokenAuthority, by_tag: Mapping[str, TokenAuthority]) -> None:
        """Ask the authority of a token's tag, and `first` for every other."""
        self._first = first
        self._by_tag = dict(by_tag)

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:
        """Return whose token it is; see TokenAuthority."""
        parsed = parse(presented)
        authority = self._first if parsed is None else self._by_tag.get(parsed.tag, self._first)
        return authority.prove(connection, presented, now)


def is_login_token(presented: str) -> bool:
    """Tell whether it has the beginning of a login token: proven in the database each time, never from memory."""
    return presented.startswith(_LOGIN_START)
