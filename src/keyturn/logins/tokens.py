"""Login tokens: made for a proven identity, proven in the database at every use, renewed, revoked.

    kt_login_<public part><secret><check>      stored: the public part, and a keyed digest of the whole

A token is refused as soon as it, a token above it, its role, its method, its principal or its workspace is no more.
A token never lives past the one above it: its end is bounded by that one's, when it is made and when it is renewed.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from keyturn.access.authorities import LOGIN_TAG
from keyturn.access.caller import TokenOwner
from keyturn.errors import BrokenInvariantError, CapError, IntegrityError
from keyturn.kernel import tokenformat
from keyturn.kernel.envelope import EnvelopeError, open_under_phrase, seal_under_phrase
from keyturn.kernel.ids import new_id
from keyturn.kernel.secret import Secret
from keyturn.logins import token_store
from keyturn.logins.model import ACTIVE, LoginRole, LoginToken, Proof
from keyturn.logins.peppers import TOKEN, Peppers

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from keyturn.storage.keyring import Keyring

PREFIX: Final = "kt"
_CONTEXT: Final = b"keyturn login v1\0"
_AGAIN_SHARE: Final = 0.5
"""How much of its time to live a token has to have left, or be given, to be handed out again."""


class LoginTokens:
    """Makes and proves login tokens; implements TokenAuthority.  It does not ask who may."""

    def __init__(self, keyring: Keyring) -> None:
        """Digest and seal with this keyring."""
        self._keyring = keyring
        self._peppers = Peppers(keyring, TOKEN)

    def prove(self, connection: Connection, presented: str, now: float) -> TokenOwner | None:
        """Return whose token it is, or None for anything that is not a login token valid now; see TokenAuthority."""
        found = self.find(connection, presented, now)
        if found is None:
            return None
        return TokenOwner(
            workspace=found.workspace,
            principal=found.principal,
            token_id=found.id,
            scopes=found.scopes,
            resources=found.resources,
            expires_at=found.expires_at,
            subject=found.subject,
            login_role=found.role,
            cidrs=found.cidrs,
        )

    def find(self, connection: Connection, presented: str, now: float) -> LoginToken | None:
        """Return a presented token that is valid now."""
        parsed = tokenformat.parse(presented)
        if parsed is None or parsed.tag != LOGIN_TAG:
            return None
        pair = token_store.token_by_lookup(connection, parsed.version_id)
        if pair is None:
            Peppers.pretend(presented)
            return None
        found, standing = pair
        equal = self._peppers.matches(connection, found.workspace, presented, found.digest)
        if not equal or not standing or not found.live(now):
            return None
        return found if token_store.parents_stand(connection, found.parent, now) else None

    def make(self, connection: Connection, made: LoginToken, now: float) -> tuple[LoginToken, Secret]:
        """Mint and store a token; `made` has everything but its public part, digest and seal."""
        minted = tokenformat.mint(PREFIX, LOGIN_TAG)
        digest = self._peppers.digest(connection, made.workspace, minted.key.reveal(), now)
        stored = replace(made, lookup=minted.version_id, digest=digest)
        token_store.insert_token(connection, stored)
        return stored, minted.key

    def log_in(
        self, connection: Connection, role: LoginRole, proof: Proof, now: float
    ) -> tuple[LoginToken, Secret, bool]:
        """Return a token of the role for a proven identity, and whether the same assertion got it before.

        Raises CapError when the role has as many live tokens as it may.
        """
        mark = _mark(proof, role.id)
        known = None if mark is None else token_store.token_by_mark(connection, role.id, mark)
        if known is not None:
            again = self._again(connection, role, known, proof, now)
            if again is not None:
                return *again, True
            token_store.forget_mark(connection, known.id)
        live = token_store.count_live(connection, role.id, now)
        if live >= role.tokens_max:
            raise CapError(
                f"the role has {live} live tokens, and may have {role.tokens_max}",
                code="tokens_cap_reached",
                hint="use one token for many calls, let them end sooner, or have `tokens_max` raised",
            )
        made, secret = self.make(connection, _of_role(role, proof, now), now)
        if mark is not None:
            sealed = self._seal(connection, made, proof, secret, now)
            token_store.set_mark(connection, made.id, mark, sealed)
        return made, secret, False

    def _again(
        self, connection: Connection, role: LoginRole, known: LoginToken, proof: Proof, now: float
    ) -> tuple[LoginToken, Secret] | None:
        """Return the token that the assertion got before, while it is live and has enough time left."""
        bounds = (known.principal, known.scopes, known.resources, known.cidrs)
        if not known.live(now) or bounds != (role.principal, role.scopes, role.resources, role.config.cidrs):
            return None
        ends = min(now + role.ttl_seconds, known.max_expires_at)
        if max(ends, known.expires_at) - now < role.ttl_seconds * _AGAIN_SHARE:
            return None
        secret = self._open(connection, known, proof)
        if secret is None:
            return None
        if known.expires_at - now < role.ttl_seconds * _AGAIN_SHARE:
            token_store.extend_token(connection, known.id, ends)
            known = replace(known, expires_at=ends)
        return known, secret

    def _seal(self, connection: Connection, made: LoginToken, proof: Proof, secret: Secret, now: float) -> bytes:
        if proof.phrase is not None:
            return seal_under_phrase(proof.phrase, _CONTEXT + made.id.encode(), secret.reveal_bytes())
        return self._keyring.seal(
            connection,
            made.workspace,
            purpose=TOKEN,
            path=made.id,
            version=1,
            plaintext=secret.reveal_bytes(),
            now=now,
        )

    def _open(self, connection: Connection, known: LoginToken, proof: Proof) -> Secret | None:
        if known.sealed is None:
            return None
        if proof.phrase is None:
            try:
                opened = self._keyring.open(
                    connection, known.workspace, known.sealed, purpose=TOKEN, path=known.id, version=1
                )
            except IntegrityError:
                return None  # its workspace key was destroyed meanwhile: the next token is sealed under another
            return Secret(opened)
        try:
            return Secret(open_under_phrase(proof.phrase, _CONTEXT + known.id.encode(), known.sealed))
        except EnvelopeError:
            message = "a login token is sealed under another assertion than its mark says"
            raise BrokenInvariantError(message) from None


def _mark(proof: Proof, role: str) -> bytes | None:
    what = proof.phrase if proof.phrase is not None else proof.mark
    return None if what is None else hashlib.sha256(b"\0".join((_CONTEXT, role.encode(), what))).digest()


def _of_role(role: LoginRole, proof: Proof, now: float) -> LoginToken:
    return LoginToken(
        id=new_id("lgt", now),
        lookup="",
        workspace=role.workspace,
        principal=role.principal,
        method=role.method,
        role=role.id,
        parent=None,
        subject=proof.subject,
        digest=b"",
        scopes=role.scopes,
        resources=role.resources,
        cidrs=role.config.cidrs,
        metadata=proof.metadata,
        renewable=role.max_ttl_seconds > role.ttl_seconds,
        ttl_seconds=role.ttl_seconds,
        state=ACTIVE,
        mark=None,
        sealed=None,
        created_at=now,
        expires_at=now + role.ttl_seconds,
        max_expires_at=now + max(role.ttl_seconds, role.max_ttl_seconds),
        revoked_at=None,
    )
