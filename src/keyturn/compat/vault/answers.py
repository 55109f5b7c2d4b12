"""What this surface answers: the envelope, the errors, and how our errors become its statuses; pure.

    {request_id, lease_id, renewable, lease_duration, data, wrap_info, warnings, auth}      200
    (nothing)                                                                               204
    {"errors": ["…"]}                                                                       400 and above
    the envelope, with the metadata of a version that was deleted or destroyed              404

Conflicts are 400 there, and a cap that is reached is 429.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from keyturn import errors
from keyturn.kernel.redact import scrub

PERMISSION_DENIED: Final = "permission denied"
INTERNAL: Final = "internal error"
ENVELOPE: Final = frozenset(
    {"request_id", "lease_id", "renewable", "lease_duration", "data", "wrap_info", "warnings", "auth"}
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `plain` is a body that has no envelope."""

    data: Any = None
    auth: dict[str, Any] | None = None
    lease_id: str = ""
    renewable: bool = False
    lease_duration: int = 0
    warnings: tuple[str, ...] = ()
    wrap_info: dict[str, Any] | None = None
    status: int = 200
    plain: Any = None
    beside: dict[str, Any] | None = None
    """What is repeated next to `data`, for clients that look there."""

    @property
    def is_wrappable(self) -> bool:
        """Whether there is anything in it to wrap."""
        return self.status == 200 and self.plain is None and self.wrap_info is None

    def envelope(self, request_id: str) -> dict[str, Any]:
        """Return the body as a map."""
        return {
            "request_id": request_id,
            "lease_id": self.lease_id,
            "renewable": self.renewable,
            "lease_duration": self.lease_duration,
            "data": self.data,
            "wrap_info": self.wrap_info,
            "warnings": list(self.warnings) or None,
            "auth": self.auth,
        }

    def body(self, request_id: str) -> bytes:
        """Encode the body; empty for a 204."""
        if self.status == 204:
            return b""
        if self.plain is not None:
            return msgspec.json.encode(self.plain)
        found = self.envelope(request_id)
        return msgspec.json.encode(found if self.beside is None else {**self.beside, **found})

    def warned(self, *warnings: str) -> Answer:
        """Return the answer with more warnings; nothing to say becomes something."""
        if not warnings:
            return self
        status = 200 if self.status == 204 else self.status
        return replace(self, warnings=(*self.warnings, *warnings), status=status)


NOTHING: Final = Answer(status=204)


def from_envelope(held: dict[str, Any]) -> Answer:
    """Return the answer that was wrapped: an envelope, or a map that is data."""
    if set(held) != ENVELOPE:
        return Answer(data=held)
    return Answer(
        data=held["data"],
        auth=held["auth"],
        lease_id=held["lease_id"],
        renewable=held["renewable"],
        lease_duration=held["lease_duration"],
        warnings=tuple(held["warnings"] or ()),
    )


class RefusedAs(errors.KeyturnError):
    """Answer with this status and these words; for what this surface words differently."""

    def __init__(self, status: int, *messages: str) -> None:
        """Hold them."""
        super().__init__(messages[0] if messages else "nothing here")
        self.status = status
        self.messages = messages


def refusal(error: BaseException) -> tuple[int, tuple[str, ...]]:
    """Return the status and the messages for an error; says nothing about one that is not ours."""
    if isinstance(error, RefusedAs):
        return error.status, error.messages
    if isinstance(error, errors.UnauthenticatedError):
        return 403, (PERMISSION_DENIED,)
    if isinstance(error, errors.ForbiddenError):
        return 403, (PERMISSION_DENIED, _said(error))
    if isinstance(error, errors.NotFoundError):
        return 404, ()
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return status, (INTERNAL,) if status == 500 else (_said(error),)


def _said(error: BaseException) -> str:
    hint = error.hint if isinstance(error, errors.KeyturnError) else None
    return scrub(f"{error} ({hint})" if hint else str(error))


_STATUS: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.TooLargeError, 413),
    (errors.UnsupportedError, 415),
    (errors.InputError, 400),
    (errors.CapError, 429),
    (errors.ConflictError, 400),
    (errors.PreconditionError, 400),
    (errors.IdempotencyError, 400),
    (errors.GoneError, 400),
    (errors.ThrottledError, 429),
    (errors.UnavailableError, 503),
)


def error_body(messages: tuple[str, ...]) -> bytes:
    """Encode an error."""
    return msgspec.json.encode({"errors": list(messages)})
