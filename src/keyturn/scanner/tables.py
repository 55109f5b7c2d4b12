"""Files in TOML that are read and not trusted: rules, policies, baselines and watches."""

from __future__ import annotations

from typing import Any, Final

from keyturn.errors import InputError, TooLargeError

CHARACTERS_MAX: Final = 8 << 20
"""The largest file that is read."""


def read_tables(text: str, name: str) -> dict[str, Any]:
    """Read a file's outermost table; raises InputError when it is no TOML, TooLargeError when it is too long."""
    import tomllib

    if len(text) > CHARACTERS_MAX:
        raise TooLargeError(f"{name} has {len(text)} characters; {CHARACTERS_MAX} are read at most", field=name)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise InputError(f"{name} is nested too deeply", field=name) from None
    except ValueError as error:
        raise InputError(f"{name} is not TOML: {error}", field=name) from None
