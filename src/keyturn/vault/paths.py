"""Paths of secrets: what they may be, and how they are named in grants.

    path                            resource
    production/payments/stripe      secret/production/payments/stripe
    staging/shop/.env               secret/staging/shop/=2Eenv
    production/api.example/key      secret/production/api=2Eexample/key

A path is an environment and 1 to 15 segments of `A-Za-z0-9_.@+=-`, none of them `.` or `..`.  Everything else is
refused where it stands, above all characters that look like others: a path that was written by hand is the path that is
read.  In a resource, `.` and `=` are written as `=` and two hexadecimal digits, so that a pattern's segments are the
path's own and two paths never share a resource.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from keyturn.access.caller import Resource
from keyturn.errors import InputError
from keyturn.kernel.match import LENGTH_MAX as NAME_CHARACTERS_MAX
from keyturn.wire.secrets import PATH_CHARACTERS_MAX, SEGMENTS_MAX

RESERVED_ENVIRONMENTS: Final = frozenset({"auth", "cubbyhole", "identity", "secret", "sys"})
"""Names that mean something else on the Vault-compatible surface."""

_ENVIRONMENT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.@+=-]+")
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.@+=-]")
_WRITTEN: Final = re.compile(r"[.=]")


@dataclass(frozen=True, slots=True)
class Path:
    """A checked path."""

    text: str

    @property
    def environment(self) -> str:
        """Its first segment."""
        return self.text.partition("/")[0]

    @property
    def resource(self) -> Resource:
        """Its name and environment, for a decision."""
        return Resource("secret/" + _encoded(self.text), self.environment)


@lru_cache(maxsize=8192)
def parse_path(text: str) -> Path:
    """Check a path; raises InputError that names the segment and what is wrong with it."""
    environment, *segments = _segments(text)
    if not segments:
        raise InputError(
            f"path {text[:80]!r} has an environment and nothing below it",
            field="path",
            hint="a path is <environment>/<segment>/…, for example production/payments/stripe",
        )
    check_environment(environment)
    path = Path(text)
    if len(path.resource.name) > NAME_CHARACTERS_MAX:
        raise InputError(
            "the path is too long as the name of a resource, where `.` and `=` take three characters each", field="path"
        )
    return path


def parse_folder(text: str) -> str:
    """Check a folder, with or without its `/` at the end; return it with one.  Raises InputError."""
    environment, *_ = _segments(text.removesuffix("/"))
    check_environment(environment)
    return text.removesuffix("/") + "/"


def check_environment(name: str) -> None:
    """Raise InputError for what cannot be an environment of secrets."""
    if _ENVIRONMENT.fullmatch(name) is None or name in RESERVED_ENVIRONMENTS:
        reason = "is reserved" if name in RESERVED_ENVIRONMENTS else "is not a-z, 0-9, `-` or `_`"
        raise InputError(f"environment {name[:64]!r} {reason}", field="path", hint="for example production or staging")


def folder_resource(folder: str) -> Resource:
    """Return the folder as the resource of a decision about listing it."""
    text = folder.removesuffix("/")
    return Resource("secret/" + _encoded(text), text.partition("/")[0])


def _segments(text: str) -> list[str]:
    if len(text) > PATH_CHARACTERS_MAX:
        raise InputError(f"the path has {len(text)} characters; expected at most {PATH_CHARACTERS_MAX}", field="path")
    segments = text.split("/")
    if len(segments) > SEGMENTS_MAX:
        raise InputError(f"the path has {len(segments)} segments; expected at most {SEGMENTS_MAX}", field="path")
    for number, segment in enumerate(segments, 1):
        if segment in {"", ".", ".."}:
            found = "is empty" if not segment else f"is {segment!r}"
            raise InputError(f"segment {number} of the path {found}", field="path", hint="paths are not resolved")
        if _SEGMENT.fullmatch(segment) is None:
            foreign = _FOREIGN.search(segment)
            shown = "a character" if foreign is None else f"U+{ord(foreign[0]):04X}"
            raise InputError(
                f"segment {number} of the path holds {shown}; expected A-Z, a-z, 0-9 and _ . @ + = -", field="path"
            )
    return segments


def _encoded(text: str) -> str:
    return _WRITTEN.sub(lambda found: f"={ord(found[0]):02X}", text)
