"""Which function answers which path: templates whose segments are words or names; pure.

    sys/leases/revoke-prefix/{prefix*}       `{name}` is one segment, `{name*}` the rest of the path, also none of it
    {mount}/data/{path*}

Where several templates match, words win over names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.compat.vault.answers import Answer
from keyturn.compat.vault.asking import PREFIX, Ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Work = Callable[[Ask], Awaitable[Answer]]
Table = dict[str, dict[str, Work]]
"""For each template, what each verb does."""

_OWN_WORDS: Final = frozenset({"sys", "auth"})
METHODS: Final = {
    "read": ("GET",),
    "list": ("LIST",),
    "write": ("POST", "PUT"),
    "patch": ("PATCH",),
    "delete": ("DELETE",),
}


@dataclass(frozen=True, slots=True)
class Route:
    """One template and its functions, by verb."""

    template: str
    segments: tuple[str, ...]
    works: Mapping[str, Work]
    is_open: bool = False
    """Whether it is served without a token of the workspace."""

    @property
    def label(self) -> str:
        """The template as metrics show it."""
        return PREFIX + self.template.replace("*", "")

    @property
    def methods(self) -> str:
        """The methods it has, for an `Allow` header."""
        found = {method for verb in self.works for method in METHODS[verb]}
        return ", ".join(sorted(found | ({"HEAD"} if "GET" in found else set())))


class Routes:
    """All routes, found by the path behind `/v1/`."""

    def __init__(self, tables: Iterable[Table], is_open: Callable[[str], bool]) -> None:
        """Join tables; a template that two of them have has the verbs of both."""
        joined: Table = {}
        for table in tables:
            for template, works in table.items():
                joined.setdefault(template, {}).update(works)
        self._by_first: dict[str, list[Route]] = {}
        for template, works in joined.items():
            segments = tuple(template.split("/"))
            first = segments[0] if segments[0] in _OWN_WORDS else ""
            self._by_first.setdefault(first, []).append(Route(template, segments, works, is_open(template)))
        for routes in self._by_first.values():
            routes.sort(key=lambda route: [segment.startswith("{") for segment in route.segments])

    def find(self, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the route of a path and what its names stand for; None when there is none."""
        segments = path.split("/")
        first = segments[0] if segments[0] in _OWN_WORDS else ""
        for route in self._by_first.get(first, ()):
            parts = _match(route.segments, segments)
            if parts is not None:
                return route, parts
        return None

    @property
    def all(self) -> list[Route]:
        """Every route."""
        return [route for routes in self._by_first.values() for route in routes]


def _match(template: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    parts: dict[str, str] = {}
    for index, part in enumerate(template):
        if part.endswith("*}"):
            parts[part[1:-2]] = "/".join(segments[index:])
            return parts
        if index >= len(segments):
            return None
        if part.startswith("{"):
            parts[part[1:-1]] = segments[index]
        elif part != segments[index]:
            return None
    return parts if len(template) == len(segments) else None


def needs_no_token(template: str) -> bool:
    """Tell whether a route is served without a token of the workspace: what opens a wrap or logs in brings its own."""
    return template in _OPEN or template.startswith("sys/wrapping/")


_OPEN: Final = frozenset({"sys/health", "sys/seal-status", "sys/leader", "sys/init", "auth/{method}/login"})
