"""TOML tables as gitleaks takes them: keys in any case, and values of a near type.

A number may be written as text, one value may stand for a list of one, and text for a list is split at commas.
What cannot be taken is an `InputError` that names where it stands.
"""

from __future__ import annotations

import math
from typing import TypeAlias

from keyturn.errors import InputError
from keyturn.scanner.tables import read_tables

Value: TypeAlias = object


class Table:
    """One table of a rule file; `where` is how an error names it."""

    def __init__(self, values: dict[str, Value], where: str) -> None:
        self._values = {key.lower(): value for key, value in values.items()}
        self.where = where

    def error(self, message: str) -> InputError:
        """Return an error of this table, to be raised."""
        return InputError(f"{self.where}: {message}", field=self.where)

    def called(self, where: str) -> Table:
        """Return the same table under a name that tells a reader more."""
        return Table(self._values, where)

    def text(self, key: str) -> str:
        """Return a text, empty when there is none."""
        return self._text(key, self._values.get(key, ""))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, empty when there is none."""
        value = self._values.get(key, [])
        if isinstance(value, str):
            return tuple(value.split(",")) if value else ()
        return tuple(self._text(key, one) for one in (value if isinstance(value, list) else [value]))

    def number(self, key: str) -> float:
        """Return a finite number, 0 when there is none."""
        value = self._values.get(key, 0)
        try:
            number = float(value) if isinstance(value, int | float | str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self.error(f"{key} has to be a number")
        return number

    def whole(self, key: str) -> int | None:
        """Return a whole number of 32 bits, None when there is none."""
        if key not in self._values:
            return None
        number = self.number(key)
        if abs(number) >= 1 << 31:
            raise self.error(f"{key} is too large")
        return int(number)

    def flag(self, key: str) -> bool:
        """Return whether something is switched on; it is off when there is no such key."""
        value = self._values.get(key, False)
        if isinstance(value, str) and value.lower() in {"", "0", "f", "false", "1", "t", "true"}:
            return value.lower() in {"1", "t", "true"}
        if not isinstance(value, int):
            raise self.error(f"{key} has to be true or false")
        return bool(value)

    def table(self, key: str) -> Table | None:
        """Return a table in this one, None when there is none."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(f"{key} has to be a table")
        return Table(value, f"{self.where}, {key}")

    def tables(self, key: str) -> list[Table]:
        """Return an array of tables, empty when there is none."""
        value = self._values.get(key, [])
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in values):
            raise self.error(f"{key} has to be an array of tables")
        return [Table(one, f"{self.where}, {key} {number}") for number, one in enumerate(values, 1)]

    def _text(self, key: str, value: Value) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{key} has to be text")
        return str(value)


def parse(text: str, name: str) -> Table:
    """Read a file's outermost table; raises InputError when it is no TOML, TooLargeError when it is too long."""
    return Table(read_tables(text, name), name)
