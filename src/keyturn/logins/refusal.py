"""Why a login is refused: for the log.  Whoever tried learns that it was refused, and nothing else."""

from __future__ import annotations

from keyturn.errors import UnauthenticatedError, UnavailableError


class RefusedLoginError(Exception):
    """An assertion that proves nothing here; `reason` is a stable word for the log, and holds no value of it."""

    def __init__(self, reason: str) -> None:
        """Name the reason."""
        super().__init__(reason)
        self.reason = reason


def refused() -> UnauthenticatedError:
    """Build the one answer to every login that fails for what it brought."""
    return UnauthenticatedError(
        "the login was refused",
        code="login_refused",
        hint="the server's log says why, under this request's id",
    )


def keys_unavailable(internal: str) -> UnavailableError:
    """Build the answer when the keys of an issuer cannot be had."""
    return UnavailableError(
        "the issuer's keys cannot be read now",
        code="jwks_unavailable",
        hint="see that the server reaches the issuer; its log says what failed",
        internal=internal,
    )


def review_unavailable(internal: str) -> UnavailableError:
    """Build the answer when a cluster cannot be asked."""
    return UnavailableError(
        "the cluster cannot review tokens now",
        code="token_review_unavailable",
        hint="see that the server reaches the cluster and its reviewer token is valid; the log says what failed",
        internal=internal,
    )
