"""Every error Keyturn raises on purpose, in one tree.

    KeyturnError                    root; nothing else escapes a public function
    |-- InputError            400   the request is malformed; names the field
    |   |-- UnsupportedError  415   the body is of a kind that is not read
    |   `-- TooLargeError     413   the body or a field exceeds its bound
    |-- UnauthenticatedError  401   no valid credential was presented
    |-- ForbiddenError        403   the caller may know the thing, but not do this to it
    |-- NotFoundError         404   no such thing, or none this caller may know of
    |-- ConflictError         409   the state forbids it now
    |   |-- InFlightError     409   the same Idempotency-Key is being worked on
    |   `-- CapError          409   a cap of the owner or workspace is reached
    |-- PreconditionError     412   If-Match names another revision
    |-- IdempotencyError      422   the Idempotency-Key was used with another body
    |-- GoneError             410   the cursor is older than what is kept
    |-- DestroyedError      410   the value opens no more: the key it was sealed under was destroyed
    |-- ThrottledError        429   too many attempts; carries retry_after_seconds
    |-- UnavailableError      503   a dependency failed; nothing was changed
    |   |-- StorageError      503   database locked, full, or out of reach
    |   `-- StaleError        503   this node may not answer from its replica
    |-- ConfigError                 settings are wrong; refuse to start
    |   `-- KekError                the root key is missing or is another one
    |-- IntegrityError              stored or presented bytes do not prove what they claim
    `-- BrokenInvariantError  500   our own bug

`code` is stable and public.  `str(error)` is a public sentence: what was expected, what was found.
`hint` says what to do next.  `internal` is for the log only.  None of them ever holds a secret.
The HTTP status is chosen in `keyturn.http` alone; the numbers above document that choice.
"""

from __future__ import annotations


class KeyturnError(Exception):
    """Root of every deliberate error; `code` is part of the public interface."""

    code: str = "internal"
    request_id: str | None = None
    """Of the request that a server refused with this error, as its log has it."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        hint: str | None = None,
        internal: str | None = None,
    ) -> None:
        """Hold a public sentence and, apart from it, detail for the log."""
        super().__init__(message)
        self.message = message
        self.field = field
        self.hint = hint
        self.internal = internal
        if code is not None:
            self.code = code


class InputError(KeyturnError):
    """The request is malformed; `field` names where."""

    code = "invalid_input"


class UnsupportedError(InputError):
    """The body is of a media type that is not read."""

    code = "unsupported_media_type"


class TooLargeError(InputError):
    """The body, or a field of it, is larger than its bound."""

    code = "too_large"


class UnauthenticatedError(KeyturnError):
    """No credential was presented, or none that is valid now."""

    code = "unauthenticated"


class ForbiddenError(KeyturnError):
    """The caller may know the resource, but may not do this to it."""

    code = "forbidden"


class NotFoundError(KeyturnError):
    """There is no such resource, or none that this caller may know of.

    Both cases are built by `not_found`, so that they cannot be told apart.
    """

    code = "not_found"


class ConflictError(KeyturnError):
    """The present state forbids the operation; nothing was changed."""

    code = "conflict"


class InFlightError(ConflictError):
    """A request with the same Idempotency-Key has not finished yet."""

    code = "idempotency_in_flight"


class CapError(ConflictError):
    """A cap of the owner or of the workspace is reached."""

    code = "cap_reached"


class PreconditionError(KeyturnError):
    """`If-Match` names a revision that is not the current one."""

    code = "revision_mismatch"


class IdempotencyError(KeyturnError):
    """The Idempotency-Key was used before with a different request."""

    code = "idempotency_mismatch"


class GoneError(KeyturnError):
    """A cursor points before what is kept; start again from a snapshot."""

    code = "cursor_gone"


class DestroyedError(KeyturnError):
    """The value is there and opens no more: the workspace key it was sealed under was destroyed."""

    code = "workspace_key_destroyed"


class ThrottledError(KeyturnError):
    """Too many attempts; try again after `retry_after_seconds`."""

    code = "throttled"

    def __init__(self, message: str, *, retry_after_seconds: float, hint: str | None = None) -> None:
        """Say when another attempt may succeed."""
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class UnavailableError(KeyturnError):
    """A dependency failed; the operation was refused and nothing was changed."""

    code = "unavailable"


class StorageError(UnavailableError):
    """The database is locked, full, read-only or out of reach."""

    code = "storage_unavailable"


class StaleError(UnavailableError):
    """This node has not confirmed its freshness and cannot read through."""

    code = "stale"


class ConfigError(KeyturnError):
    """A setting is missing, unknown or unsafe; the process refuses to start."""

    code = "config"


class KekError(ConfigError):
    """The root key (KEK) is missing or is not the one the data was sealed under."""

    code = "kek"


class IntegrityError(KeyturnError):
    """Bytes do not prove what they claim: a signature, seal or hash is wrong."""

    code = "integrity"


class BrokenInvariantError(KeyturnError):
    """Our own bug: an operation tried to leave without what it must leave behind."""

    code = "broken_invariant"


def not_found(kind: str, name: str) -> NotFoundError:
    """Build the one answer for "does not exist" and "is not for you to know"."""
    return NotFoundError(
        f"no {kind} named {name!r} is visible to this caller", hint="check the name; a list shows what is visible"
    )


def duplicate(kind: str, name: str) -> ConflictError:
    """Build the refusal of a name that is taken."""
    return ConflictError(
        f"there is a {kind} named {name!r} already",
        code="duplicate",
        field="name",
        hint="take another name, or use the one that is there",
    )
