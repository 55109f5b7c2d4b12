"""Options that several commands share: restrictions, metadata, revisions, limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyturn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

limit_option = click.option("--limit", type=click.IntRange(min=1), help="Show at most this many.")
revision_option = click.option(
    "--revision", type=click.IntRange(min=0), help="Change it only while it has this revision."
)
_RESTRICTIONS = (
    click.option("--cidr", "cidrs", multiple=True, help="Only from this network; repeatable."),
    click.option("--origin", "origins", multiple=True, help="Only from this origin; repeatable."),
    click.option(
        "--endpoint", "endpoints", multiple=True, metavar="'METHODS PATH'", help="Such as 'GET,HEAD /orders/**'."
    ),
)


def restrictions_options(command: F) -> F:
    """Add `cidrs`, `origins` and `endpoints` to a command."""
    for option in reversed(_RESTRICTIONS):
        command = option(command)
    return command


def if_match(revision: int | None) -> str | None:
    """Return the entity tag of a revision."""
    return None if revision is None else f'"{revision}"'


def read_restrictions(
    cidrs: tuple[str, ...], origins: tuple[str, ...], endpoints: tuple[str, ...]
) -> dict[str, Any] | None:
    """Build the restrictions of a request; None when none were given."""
    if not (cidrs or origins or endpoints):
        return None
    pairs = []
    for endpoint in endpoints:
        methods, space, path = endpoint.partition(" ")
        if not (methods and space and path.strip()):
            message = f"expected methods and a path, such as 'GET,HEAD /orders/**', found {endpoint!r}"
            raise InputError(message, field="--endpoint")
        pairs.append({"methods": methods.split(","), "path": path.strip()})
    return {"cidrs": cidrs, "origins": origins, "endpoints": pairs}


def read_metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    """Build metadata from NAME=VALUE."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            message = f"expected NAME=VALUE, found {pair!r}"
            raise InputError(message, field="--metadata")
        found[name] = value
    return found
