"""Logging in, and the operations on login methods, their roles, secret-ids and tokens.

    logins.login(...)          an assertion -> a token
    logins.methods             create, read, list, update, delete
    logins.roles               create, read, list, update, delete
    logins.secret_ids          issue, list, find, read, revoke
    logins.tokens              read_self, renew_self, revoke_self; issue (below one's own), list, read, renew, revoke

A login goes

    read     the method and the role as they are now
    prove    the assertion, asking the issuer or the cluster where it must: no transaction is open meanwhile
    write    the same method and role still (else once more) -> the token, and its leaf `auth.login`, in one commit

A login that fails writes nothing: it is counted, logged with its reason, and answered without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from keyturn.access import principals
from keyturn.access.rules import within
from keyturn.access.shares import Shares
from keyturn.audit.leaf import Actor, Leaf
from keyturn.errors import ConflictError, InputError
from keyturn.kernel.clock import rfc3339
from keyturn.logins import certificates, clusters, jwt, store, token_store
from keyturn.logins.answers import seconds_left
from keyturn.logins.assertions import Assertion, CertificateAssertion, JwtAssertion, SecretIdAssertion
from keyturn.logins.methods import MethodService
from keyturn.logins.model import ACTIVE, APPROLE, JWT, KUBERNETES, LoginRole, Method, Proof, role_resource
from keyturn.logins.refusal import RefusedLoginError, refused
from keyturn.logins.roles import LoginRoleService
from keyturn.logins.secret_ids import SecretIdService
from keyturn.logins.throttle import Throttle
from keyturn.logins.token_service import LoginTokenService
from keyturn.storage.transaction import ChangeKind, Entry
from keyturn.wire.actions import Action
from keyturn.wire.logins import LoginAnswer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.access.door import Door
    from keyturn.access.model import Principal
    from keyturn.kernel.secret import Secret
    from keyturn.logins.jwks import KeySets
    from keyturn.logins.model import LoginToken
    from keyturn.logins.ports import FailureSink, Fetcher
    from keyturn.logins.tokens import LoginTokens
    from keyturn.storage.keyring import Keyring
    from keyturn.storage.transaction import Transaction

DEFAULT_WORKSPACE: Final = "default"
TRIES: Final = 3
PROVEN_EACH: Final = 4
"""How many assertions of one workspace are proven at once in this worker, for which others may have to be asked."""
_log = structlog.get_logger("keyturn.logins")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """Who asks to log in, and where from."""

    method: str
    role: str | None
    assertion: Assertion
    workspace: str
    ip: str | None
    request_id: str | None

    @property
    def place(self) -> tuple[str, ...]:
        """What failures are counted for."""
        role = self.assertion.role_id if isinstance(self.assertion, SecretIdAssertion) else self.role or ""
        return (self.workspace, self.method, role)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The method and role that an attempt is about."""

    method: Method
    role: LoginRole
    reviewer: Secret | None = None
    proof: Proof | None = None


class _ChangedError(Exception):
    """The method or role changed while the assertion was being proven."""


class LoginService:
    """Lets proven identities in."""

    def __init__(
        self,
        door: Door,
        keyring: Keyring,
        tokens: LoginTokens,
        fetcher: Fetcher,
        key_sets: KeySets,
        failures: FailureSink,
    ) -> None:
        """Need the door and the keyring, what makes tokens, what asks issuers, and a place to count failures."""
        self.methods = MethodService(door, keyring, fetcher)
        self.roles = LoginRoleService(door)
        self.secret_ids = SecretIdService(door, keyring)
        self.tokens = LoginTokenService(door, tokens)
        self._database = door.database
        self._tokens = tokens
        self._fetcher = fetcher
        self._key_sets = key_sets
        self._failures = failures
        self._throttle = Throttle(door.database.clock.boottime)
        self._shares = Shares(PROVEN_EACH)

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
        attempt = _Attempt(method, role, assertion, workspace or DEFAULT_WORKSPACE, ip, request_id)
        self._throttle.check(ip, *attempt.place)
        try:
            return await self._tried(attempt)
        except RefusedLoginError as error:
            self._throttle.failed(ip, *attempt.place)
            self._failures.count(ip, self._database.clock.now())
            _log.info(
                "a login was refused",
                reason=error.reason,
                workspace=attempt.workspace,
                method=method,
                role=role,
                ip=ip,
                request=request_id,
            )
            raise refused() from None

    async def _tried(self, attempt: _Attempt) -> LoginAnswer:
        for _ in range(TRIES):
            now = self._database.clock.now()
            asked = await self._database.read(lambda connection, now=now: self._asked(connection, attempt, now))  # type: ignore[misc]
            proof = asked.proof or await self._proven_in_turn(asked, attempt)
            try:
                return (await self._database.write(lambda t, a=asked, p=proof: self._admit(t, attempt, a, p))).value  # type: ignore[misc]
            except _ChangedError:
                continue
        raise ConflictError("the login method keeps changing", code="login_method_changing", hint="try again")

    def _asked(self, connection: Connection, attempt: _Attempt, now: float) -> _Asked:
        """Load what the attempt is about; a secret-id is proven here, in the database, by the time it is now."""
        method, role = _load(connection, attempt)
        if role.config.cidrs and not within(role.config.cidrs, attempt.ip):
            raise RefusedLoginError("network")
        if isinstance(attempt.assertion, SecretIdAssertion):
            proof = self.secret_ids.prove(connection, role, attempt.assertion.secret_id, attempt.ip, now)
            return _Asked(method, role, proof=proof)
        if method.kind == KUBERNETES:
            return _Asked(method, role, reviewer=self.methods.reviewer(connection, method))
        return _Asked(method, role)

    async def _proven_in_turn(self, asked: _Asked, attempt: _Attempt) -> Proof:
        """Prove an assertion, for which an issuer or a cluster of the workspace may have to be asked."""
        async with self._shares.place(asked.method.workspace):
            return await self._proven(asked, attempt)

    async def _proven(self, asked: _Asked, attempt: _Attempt) -> Proof:
        config, binding, assertion = asked.method.config, asked.role.config, attempt.assertion
        now = self._database.clock.now()
        if isinstance(assertion, CertificateAssertion) and config.certificate and binding.certificate:
            return certificates.prove(assertion, config.certificate, binding.certificate, now)
        if not isinstance(assertion, JwtAssertion):
            raise RefusedLoginError("assertion_of_another_kind")
        if config.kubernetes and binding.kubernetes and asked.reviewer is not None:
            return await clusters.review(
                self._fetcher, config.kubernetes, asked.reviewer, binding.kubernetes, assertion.token
            )
        if config.jwt is None or binding.jwt is None:
            raise RefusedLoginError("assertion_of_another_kind")
        unproven = jwt.take_apart(assertion.token.reveal(), config.jwt)
        # Before any key is asked for: what could not be let in anyway costs the issuer no request.
        jwt.check_standard(unproven.claims, config.jwt, binding.jwt.audiences, now)
        keys = await self._key_sets.find(config.jwt, unproven.kid, unproven.algorithm)
        jwt.check_signature(unproven, keys)
        return jwt.prove(unproven, config.jwt, binding.jwt, asked.method.id, self._database.clock.now())

    def _admit(self, transaction: Transaction, attempt: _Attempt, asked: _Asked, proof: Proof) -> LoginAnswer:
        """Give the token, in the unit of work that also records it."""
        connection, now = transaction.connection, transaction.now
        method, role = _load(connection, attempt)
        if (method.revision, role.revision, role.id) != (asked.method.revision, asked.role.revision, asked.role.id):
            raise _ChangedError
        principal = principals.active(connection, role.workspace, role.principal)
        if principal is None:
            raise RefusedLoginError("principal_disabled")
        if proof.expires_at is not None and now >= proof.expires_at:
            raise RefusedLoginError("expired")
        if proof.replay is not None and not token_store.claim_replay(connection, proof.replay, proof.expires_at or now):
            raise RefusedLoginError("used_before")
        if proof.secret_id is not None and not store.use_secret(connection, proof.secret_id, now):
            raise RefusedLoginError("secret_id_state")
        token, secret, again = self._tokens.log_in(connection, role, proof, now)
        leaf = _leaf(attempt, method, role, principal, token, again=again, at=now)
        transaction.append(Entry(role.workspace, ChangeKind.AUDIT, token.id, leaf.row()))
        return _answer(attempt, method, role, principal, token, secret, again=again, now=now)


def _load(connection: Connection, attempt: _Attempt) -> tuple[Method, LoginRole]:
    """Return the method and role as they are now; raises RefusedLoginError when there is none that lets anybody in."""
    workspace = store.workspace_by_name(connection, attempt.workspace)
    if workspace is None:
        raise RefusedLoginError("no_workspace")
    method = store.method_by_name(connection, workspace, attempt.method)
    if method is None or method.state != ACTIVE:
        raise RefusedLoginError("no_method" if method is None else "method_disabled")
    by_secret = isinstance(attempt.assertion, SecretIdAssertion)
    by_certificate = isinstance(attempt.assertion, CertificateAssertion)
    if by_secret != (method.kind == APPROLE) or by_certificate == (method.kind in (JWT, KUBERNETES, APPROLE)):
        raise RefusedLoginError("assertion_of_another_kind")
    if isinstance(attempt.assertion, SecretIdAssertion):
        role = store.role_by_role_id(connection, workspace, attempt.assertion.role_id)
    else:
        role = store.role_by_name(connection, method.id, attempt.role or "")
    if role is None or role.method != method.id:
        raise RefusedLoginError("no_role")
    return method, role


def _leaf(
    attempt: _Attempt,
    method: Method,
    role: LoginRole,
    principal: Principal,
    token: LoginToken,
    *,
    again: bool,
    at: float,
) -> Leaf:
    return Leaf(
        workspace=role.workspace,
        action=Action.AUTH_LOGIN,
        outcome="allowed",
        actor=Actor(principal.id, principal.kind, principal.name, token.id),
        resource=role_resource(method.name, role.name).name,
        at=at,
        detail={
            "method": method.name,
            "kind": method.kind,
            "role": role.name,
            "subject": token.subject,
            "token": token.id,
            "again": again,
            "expires_at": rfc3339(token.expires_at),
        },
        request_id=attempt.request_id,
        ip=attempt.ip,
    )


def _answer(
    attempt: _Attempt,
    method: Method,
    role: LoginRole,
    principal: Principal,
    token: LoginToken,
    secret: Secret,
    *,
    again: bool,
    now: float,
) -> LoginAnswer:
    return LoginAnswer(
        token=secret.reveal(),
        token_id=token.id,
        principal=principal.id,
        principal_kind=principal.kind,
        principal_name=principal.name,
        workspace=attempt.workspace,
        method=method.name,
        method_kind=method.kind,
        role=role.name,
        subject=token.subject,
        scopes=token.scopes,
        resources=token.resources,
        ttl_seconds=seconds_left(token.expires_at, now),
        renewable=token.renewable,
        created_at=rfc3339(token.created_at),
        expires_at=rfc3339(token.expires_at),
        max_expires_at=rfc3339(token.max_expires_at),
        metadata=token.metadata,
        again=again,
    )


def assertion_of(
    jwt_text: Secret | None, role_id: str | None, secret_id: Secret | None, certificate: CertificateAssertion | None
) -> Assertion:
    """Return the one assertion that a request brought; raises InputError when it brought none, or two."""
    if secret_id is not None or role_id is not None:
        if jwt_text is not None:
            raise InputError("expected a jwt, or role_id with secret_id, found both", field="jwt")
        if secret_id is None or role_id is None:
            missing = "secret_id" if secret_id is None else "role_id"
            raise InputError("expected role_id and secret_id together", field=missing)
        return SecretIdAssertion(role_id, secret_id)
    if jwt_text is not None:
        return JwtAssertion(jwt_text)
    if certificate is None:
        raise InputError("expected a jwt, or role_id with secret_id", field="jwt")
    return certificate
