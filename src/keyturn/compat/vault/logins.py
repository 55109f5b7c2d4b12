"""`auth/<method>/login`: the methods of the workspace, by name.

The workspace is the one in `X-Vault-Namespace`, or else `default`.  What is wrong with an identity is not told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from keyturn.compat.vault.answers import PERMISSION_DENIED, Answer, RefusedAs
from keyturn.compat.vault.bodies import LoginBody
from keyturn.compat.vault.tokens import auth_of
from keyturn.errors import InputError, UnauthenticatedError
from keyturn.kernel.secret import Secret
from keyturn.logins.assertions import Assertion, CertificateAssertion, JwtAssertion, SecretIdAssertion
from keyturn.wire.logins import ASSERTION_CHARS_MAX

if TYPE_CHECKING:
    from keyturn.compat.vault.asking import Ask
    from keyturn.compat.vault.routing import Table
    from keyturn.logins.service import LoginService
    from keyturn.wire.logins import LoginAnswer

LOGIN: Final = "auth/{method}/login"
BAD_SECRET_ID: Final = "invalid role or secret ID"  # noqa: S105 -- what is said of one
BAD_CERTIFICATE: Final = "invalid certificate or no client certificate supplied"
_TEXT_MAX: Final = 256


class LoginOperations:
    """The route that logs in."""

    def __init__(self, logins: LoginService) -> None:
        """Need the logins."""
        self._logins = logins

    def table(self) -> Table:
        """Return the route's function."""
        return {LOGIN: {"write": self.login}}

    async def login(self, ask: Ask) -> Answer:
        """Prove an identity, by what the body holds."""
        body = ask.fields(LoginBody)
        assertion = _assertion(ask, body)
        role = body.role or body.name or None
        for name, text in (("role", role), ("role_id", body.role_id), ("secret_id", body.secret_id)):
            if text is not None and len(text) > _TEXT_MAX:
                raise InputError(f"{name}: expected at most {_TEXT_MAX} characters", field=name)
        try:
            answer = await self._logins.login(
                ask.parts["method"],
                None if isinstance(assertion, SecretIdAssertion) else role,
                assertion,
                workspace=ask.namespace,
                ip=ask.ip,
                request_id=ask.request_id,
            )
        except UnauthenticatedError:
            raise _refusal(assertion) from None
        return Answer(auth=_auth(answer))


def _assertion(ask: Ask, body: LoginBody) -> Assertion:
    if body.jwt is not None:
        if len(body.jwt) > ASSERTION_CHARS_MAX:
            raise InputError(f"jwt: expected at most {ASSERTION_CHARS_MAX} characters", field="jwt")
        return JwtAssertion(Secret(body.jwt))
    if body.role_id is not None:
        if not body.secret_id:
            raise RefusedAs(400, "missing secret_id")
        return SecretIdAssertion(body.role_id, Secret(body.secret_id))
    if "secret_id" in ask.body:
        raise RefusedAs(400, "missing role_id")
    return CertificateAssertion(ask.headers, proxied=ask.proxied)


def _refusal(assertion: Assertion) -> RefusedAs:
    if isinstance(assertion, SecretIdAssertion):
        return RefusedAs(400, BAD_SECRET_ID)
    if isinstance(assertion, CertificateAssertion):
        return RefusedAs(400, BAD_CERTIFICATE)
    return RefusedAs(403, PERMISSION_DENIED)


def _auth(answer: LoginAnswer) -> dict[str, Any]:
    return auth_of(
        token=answer.token,
        accessor=answer.token_id,
        scopes=answer.scopes,
        metadata={"role": answer.role, "role_name": answer.role, "subject": answer.subject, **answer.metadata},
        ttl_seconds=answer.ttl_seconds,
        renewable=answer.renewable,
        principal=answer.principal,
        orphan=True,
    )
