"""Resolving references when a version is read: pure but for `load`, which reads and records.

    text of a field --parts--> texts and references --load(path)--> fields of the target --> its field, likewise

A reference that is the whole text takes over the value as it is; among other text it has to be a text, a number or
true or false.  What is wrong with a reference is one error, `broken_reference`, whether the target is not there, is not
for this caller, or goes in a circle: it names the reference, and nothing of the target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from keyturn.errors import ConflictError, IntegrityError, KeyturnError, UnavailableError
from keyturn.vault.references import Reference, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEPTH_MAX: Final = 8
TARGETS_MAX: Final = 64
"""How many secrets one read may take values from."""

INSERTED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bound of all that is taken over in one read: references to references could else grow without end."""


def may_refer(fields: bytes) -> bool:
    """Tell whether the JSON of fields may hold a reference, or the escape of one."""
    # `$`, `{` and `:` may be written as escapes in JSON; then there is a backslash.
    return b"${secret:" in fields or b"\\u" in fields


class Resolver:
    """Resolves the references of one read; each target is loaded once."""

    def __init__(self, load: Callable[[str], Mapping[str, Any]]) -> None:
        """Take the fields of a path from `load`, which raises KeyturnError when it lets out nothing."""
        self._load = load
        self._targets: dict[str, Mapping[str, Any]] = {}
        self._resolved: dict[Reference, Any] = {}
        self._way: list[Reference] = []
        self._bytes = 0

    @property
    def targets(self) -> tuple[str, ...]:
        """The paths that values were taken from."""
        return tuple(sorted(self._targets))

    def resolve(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return fields with every reference resolved; raises ConflictError `broken_reference`."""
        return {name: self._value(value) for name, value in fields.items()}

    def _value(self, value: Any) -> Any:  # noqa: ANN401 -- JSON
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {name: self._value(item) for name, item in value.items()}
        return value

    def _text(self, text: str) -> Any:  # noqa: ANN401 -- JSON
        if "${secret:" not in text:
            return text
        try:
            split = parts(text)
        except ValueError as error:
            raise _broken(f"a text holds a reference that is none: {error}") from None
        if len(split) == 1 and isinstance(split[0], Reference):
            return self._of(split[0])
        return "".join(part if isinstance(part, str) else self._inserted(part) for part in split)

    def _inserted(self, reference: Reference) -> str:
        value = self._of(reference)
        if isinstance(value, str):
            return value
        if value is None or isinstance(value, list | dict):
            raise _broken(f"{_shown(reference)} is no text, and stands among other text")
        return msgspec.json.encode(value).decode()

    def _of(self, reference: Reference) -> Any:  # noqa: ANN401 -- JSON
        if reference not in self._resolved:
            self._resolved[reference] = self._follow(reference)
        value = self._resolved[reference]
        self._bytes += len(value) if isinstance(value, str) else len(msgspec.json.encode(value))
        if self._bytes > INSERTED_BYTES_MAX:
            raise _broken(f"its references take in more than {INSERTED_BYTES_MAX} bytes")
        return value

    def _follow(self, reference: Reference) -> Any:  # noqa: ANN401 -- JSON
        if reference in self._way:
            raise _broken(f"{_shown(reference)} refers to itself, over {len(self._way)} steps")
        if len(self._way) >= DEPTH_MAX:
            raise _broken(f"{_shown(reference)} is more than {DEPTH_MAX} references away")
        fields = self._fields(reference)
        if reference.field not in fields:
            raise _broken(f"{_shown(reference)} is not there, or not for this caller")
        self._way.append(reference)
        try:
            return self._value(fields[reference.field])
        finally:
            self._way.pop()

    def _fields(self, reference: Reference) -> Mapping[str, Any]:
        known = self._targets.get(reference.path)
        if known is not None:
            return known
        if len(self._targets) >= TARGETS_MAX:
            raise _broken(f"its references lead to more than {TARGETS_MAX} secrets")
        try:
            found = self._load(reference.path)
        except (UnavailableError, IntegrityError):
            raise
        except KeyturnError as error:
            raise _broken(f"{_shown(reference)} is not there, or not for this caller", internal=error.code) from None
        self._targets[reference.path] = found
        return found


def _broken(message: str, *, internal: str | None = None) -> ConflictError:
    return ConflictError(
        message,
        code="broken_reference",
        hint="read it without resolving references, and see what its references name",
        internal=internal,
    )


def _shown(reference: Reference) -> str:
    field = "".join(character if character.isprintable() else "?" for character in reference.field)[:64]
    return f"${{secret:{reference.path}#{field}}}"
