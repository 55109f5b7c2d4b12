"""What has no counterpart here is refused by name, and never ignored."""

from __future__ import annotations

from keyturn.errors import InputError


def refuse_given(**given: object) -> None:
    """Raise InputError for the first of these fields that asks for anything."""
    for name, value in given.items():
        if value:
            raise InputError(f"{name} is not supported here", field=name, hint="leave it out")
