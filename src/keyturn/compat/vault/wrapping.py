"""`sys/wrapping/…`, and any answer that `X-Vault-Wrap-TTL` asks to be put aside.

The token of a wrap is its only credential: it comes in the body, or takes the place of the caller's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.access.caller import Credentials
from keyturn.compat.vault.answers import Answer, RefusedAs, from_envelope
from keyturn.compat.vault.bodies import TokenBody
from keyturn.compat.vault.logins import LOGIN
from keyturn.errors import GoneError, NotFoundError
from keyturn.http.edge import API
from keyturn.kernel.secret import Secret
from keyturn.vault.wrapping import Bearer
from keyturn.wire.wraps import CreateWrap

if TYPE_CHECKING:
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.routing import Table
    from keyturn.vault.wrapping import WrapService
    from keyturn.wire.wraps import WrapCreated

WRAP: Final = "sys/wrapping/wrap"
INVALID: Final = "wrapping token is not valid or does not exist"
_NATIVE: Final = API.removeprefix("/") + "/"
_LOGIN_END: Final = LOGIN.rpartition("}")[2]
_TOKEN_CHARACTERS_MAX: Final = 256


class WrappingOperations:
    """The routes of wraps, and the wrapping of answers."""

    def __init__(self, wraps: WrapService) -> None:
        """Need the wraps."""
        self._wraps = wraps

    def table(self) -> Table:
        """Return each route's functions."""
        return {
            WRAP: {"write": self.wrap},
            "sys/wrapping/unwrap": {"write": self.unwrap},
            "sys/wrapping/lookup": {"read": self.lookup, "write": self.lookup},
            "sys/wrapping/rewrap": {"write": self.rewrap},
        }

    async def wrap(self, ask: Ask) -> Answer:
        """Wrap the body."""
        if not ask.wrap_seconds:
            raise RefusedAs(400, "endpoint requires response wrapping to be used")
        request = CreateWrap(data=dict(ask.body), ttl_seconds=ask.wrap_seconds)
        made = await self._wraps.wrap(ask.credentials, request, creation_path=WRAP)
        return Answer(wrap_info=_wrap_info(made))

    async def unwrap(self, ask: Ask) -> Answer:
        """Give what was wrapped, once."""
        if ask.wrap_seconds:
            # Whoever has only the token of the wrap could not wrap it again, and what is in it would be lost.
            raise RefusedAs(400, "what is opened is not wrapped again", "use sys/wrapping/rewrap")
        try:
            opened = await self._wraps.unwrap(_wrap_token(ask), _bearer(ask))
        except (GoneError, NotFoundError) as error:
            raise _invalid(error) from None
        if opened.creation_path == WRAP or opened.creation_path.startswith(_NATIVE):
            # What somebody put there is data, however much it looks like an answer of this server.
            return Answer(data=opened.data)
        return from_envelope(opened.data)

    async def lookup(self, ask: Ask) -> Answer:
        """Tell what a wrap is, and leave it as it is."""
        try:
            info = await self._wraps.lookup(_wrap_token(ask), _bearer(ask))
        except (GoneError, NotFoundError) as error:
            raise _invalid(error) from None
        data = {
            "creation_path": info.creation_path,
            "creation_time": info.created_at,
            "creation_ttl": info.ttl_seconds,
        }
        return Answer(data=data)

    async def rewrap(self, ask: Ask) -> Answer:
        """Put the same aside under a new token."""
        try:
            made = await self._wraps.rewrap(_wrap_token(ask), _bearer(ask))
        except (GoneError, NotFoundError) as error:
            raise _invalid(error) from None
        return Answer(wrap_info=_wrap_info(made))

    async def wrap_answer(self, ask: Ask, answer: Answer) -> Answer:
        """Put an answer aside that the caller would have got; of a login, in the name of who logged in."""
        auth = answer.auth or {}
        credentials = None
        if ask.path.endswith(_LOGIN_END) and "client_token" in auth:
            credentials = Credentials(Secret(auth["client_token"]), ask.ip, ask.request_id)
        made = await self._wraps.wrap_answer(
            credentials or ask.credentials, ask.path, answer.envelope(ask.request_id), ask.wrap_seconds
        )
        info = _wrap_info(made)
        if "accessor" in auth:
            info["wrapped_accessor"] = auth["accessor"]
        return Answer(wrap_info=info)


def _wrap_info(made: WrapCreated) -> dict[str, Any]:
    return {
        "token": made.token,
        "accessor": made.id,
        "ttl": made.ttl_seconds,
        "creation_time": made.created_at,
        "creation_path": made.creation_path,
    }


def _wrap_token(ask: Ask) -> Secret:
    given = ask.fields(TokenBody).token
    if given is not None:
        if not 0 < len(given) <= _TOKEN_CHARACTERS_MAX:
            raise RefusedAs(400, INVALID)
        return Secret(given)
    if ask.token is None:
        raise RefusedAs(400, "missing token to unwrap")
    return ask.token


def _bearer(ask: Ask) -> Bearer:
    return Bearer(ask.ip, ask.request_id)


def _invalid(error: GoneError | NotFoundError) -> RefusedAs:
    # The words that clients look for come first; why it cannot be opened is for whoever holds the right token.
    return RefusedAs(400, INVALID, str(error)) if isinstance(error, GoneError) else RefusedAs(400, INVALID)
