"""What an audit leaf is made of.  Pure, so that rules may name it."""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["allowed", "denied", "failed"]
Detail = str | int | bool | None | list["Detail"] | dict[str, "Detail"]
"""What has a canonical form: no floats."""


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who acted; `token` is the id of the management token as a key (`tok_…`), never anything of its secret."""

    id: str
    kind: str
    name: str = ""
    token: str | None = None


SYSTEM = Actor("system", "system")
