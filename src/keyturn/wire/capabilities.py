"""Capabilities on held secrets: short names for the actions that are granted together, and paths as grants name them.

A grant holds actions and a resource pattern, and nothing else; a capability is a way to write them down.
"""

from __future__ import annotations

import re
from typing import Final

from keyturn.wire.actions import Action

CAPABILITIES: Final[dict[str, tuple[str, ...]]] = {
    "read": (Action.SECRET_READ,),
    "list": (Action.SECRET_LIST,),
    "write": (
        Action.SECRET_PUT,
        Action.SECRET_UPDATE,
        Action.SECRET_DELETE,
        Action.SECRET_UNDELETE,
        Action.SECRET_ROLLBACK,
    ),
    "rotate": (Action.SECRET_PUT, Action.SECRET_PROMOTE),
    "reveal": (Action.SECRET_REVEAL,),
    "share": (Action.SECRET_SHARE,),
    "admin": ("secret.*", "approval.*"),
}
"""What each capability grants on a path; `read` is for services and agents, `reveal` for people."""

_WRITTEN: Final = re.compile(r"[.=]")


def actions_of(capabilities: tuple[str, ...]) -> tuple[str, ...]:
    """Return the actions of several capabilities, each once; raises KeyError for a name that is none."""
    return tuple(dict.fromkeys(str(action) for name in capabilities for action in CAPABILITIES[name]))


def path_resource(pattern: str) -> str:
    """Return the resource pattern of a path or a pattern over paths, as the vault names them."""
    return "secret/" + _WRITTEN.sub(lambda found: f"={ord(found[0]):02X}", pattern)
