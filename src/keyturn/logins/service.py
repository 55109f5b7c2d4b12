"""Logging in, and the operations on login methods, their roles, secret-ids and tokens.

logins.login(...)          an assertion -> a token
logins.methods             create, read, list, update, delete
logins.roles               create, read, list, update, delete
logins.secret_ids          issue, list, find, read, revoke
logins.tokens              read_self, renew_self, revoke_self; issue (below the caller's own), list, read, renew, revoke
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn.logins.assertions import Assertion, SecretIdAssertion

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret
    from keyturn.logins.methods import MethodService
    from keyturn.logins.roles import LoginRoleService
    from keyturn.logins.secret_ids import SecretIdService
    from keyturn.logins.token_service import LoginTokenService
    from keyturn.wire.logins import LoginAnswer


class LoginService:
    """Lets proven identities in."""

    methods: MethodService
    roles: LoginRoleService
    secret_ids: SecretIdService
    tokens: LoginTokenService

    async def login(
        self,
        method: str,
        role: str | None,
        assertion: Assertion,
        *,
        workspace: str | None = None,
        ip: str | None = None,
        request_id: str | None = None,
    ) -> LoginAnswer:
        """Prove an identity and return its token; the same assertion gets the same live token again.

        `workspace` is a name; without one it is `default`.
        Raises UnauthenticatedError (code `login_refused`) whatever is wrong with the assertion, CapError when the role
        has as many live tokens as it may, ThrottledError after too many failures from one network, and
        UnavailableError when the issuer's keys or the cluster cannot be asked.
        """
        raise NotImplementedError

    async def approle_login(
        self,
        role_id: str,
        secret_id: Secret,
        *,
        method: str = "approle",
        workspace: str | None = None,
        ip: str | None = None,
        request_id: str | None = None,
    ) -> LoginAnswer:
        """Log in by role-id and secret-id; see `login`."""
        assertion = SecretIdAssertion(role_id, secret_id)
        return await self.login(method, None, assertion, workspace=workspace, ip=ip, request_id=request_id)
