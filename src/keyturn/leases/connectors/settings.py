"""What an administrator gives for a connection or a role, checked against a struct; errors never repeat a value."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from keyturn.errors import InputError
from keyturn.leases.ports import Destination

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

Host = Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+(?!\n)$")]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Word = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+(?!\n)$")]
Statement = Annotated[str, Meta(min_length=1, max_length=8192, pattern=r"^[^\x00]+$")]
Statements = Annotated[tuple[Statement, ...], Meta(max_length=32)]
Tls = Literal["verify", "require", "disable"]
"""`verify` checks the server's certificate and name, `require` encrypts only, `disable` does neither."""

_PLACE: Final = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")


def read(given: Mapping[str, Any], kind: type[T], field: str) -> T:
    """Build the struct from what was given; raises InputError naming the field below `field`."""
    try:
        return msgspec.convert(dict(given), type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text)
        said = text[: place.start()] if place is not None else text
        where = f"{field}.{place['field']}" if place is not None and place["field"] else field
    raise InputError(f"{where}: {said}", field=where)


def destination(connection: Mapping[str, Any]) -> Destination:
    """Say where a connection of `host`, `port` and `tls` leads; only a certificate that is checked proves the name."""
    proven = connection["tls"] == "verify"
    return Destination(
        connection["host"],
        connection["port"],
        moved=None if proven else lambda address: {**connection, "host": address},
    )


def tls_context(tls: Tls, ca: str | None) -> ssl.SSLContext | None:
    """Return what to encrypt with; None for no encryption.  Raises InputError for certificates that cannot be read."""
    if tls == "disable":
        return None
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise InputError("expected PEM certificates", field="connection.ca") from None
    if tls == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
