"""Workload identity: the requests and responses of `/api/v1/login`, `/api/v1/login-methods` and `/api/v1/login-tokens`.

Times in a response are RFC 3339 in UTC.  Durations are whole seconds.
In an update a field that is left out stays as it is, and `null` clears it.

A *pattern* of a claim or name is literal text, or text that ends in one `*` and then stands for everything that begins
with what is before it.  A `*` anywhere else is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from keyturn.wire.access import Address, Pattern, Reference
from keyturn.wire.keys import Description, Lifetime, Line, Metadata, Scope

METHODS_MAX: Final = 64
"""Login methods of one workspace."""
ROLES_MAX: Final = 1000
"""Roles of one login method."""
ASSERTION_CHARS_MAX: Final = 16_384
PEM_CHARS_MAX: Final = 65_536
TTL_SECONDS_DEFAULT: Final = 900
MAX_TTL_SECONDS_DEFAULT: Final = 14_400
TTL_SECONDS_MAX: Final = 2_764_800
"""32 days: no login token lives longer, however often it is renewed."""
TOKENS_MAX_DEFAULT: Final = 1000
LEASES_MAX_DEFAULT: Final = 1000
LEEWAY_SECONDS_MAX: Final = 60

_NAME = r"^[a-z0-9][a-z0-9_-]*(?!\n)$"
_HEADER = r"^[A-Za-z0-9][A-Za-z0-9-]*(?!\n)$"
_HTTP_URL = r"^https?://[!-~]+(?!\n)$"

LoginMethodKind = Literal["jwt", "approle", "kubernetes", "certificate"]
LoginPreset = Literal["github-actions", "gitlab", "kubernetes"]
LoginState = Literal["active", "disabled"]
JwtAlgorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ALGORITHMS_DEFAULT: Final[tuple[JwtAlgorithm, ...]] = ("RS256", "PS256", "ES256", "ES384", "EdDSA")

LoginName = Annotated[str, Meta(min_length=1, max_length=64, pattern=_NAME)]
WorkspaceReference = Annotated[str, Meta(min_length=1, max_length=63)]
RoleId = Annotated[str, Meta(min_length=8, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(?!\n)$")]
AssertionText = Annotated[str, Meta(min_length=1, max_length=ASSERTION_CHARS_MAX)]
SecretIdText = Annotated[str, Meta(min_length=1, max_length=256)]
Issuer = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[!-~]+(?!\n)$")]
HttpUrl = Annotated[str, Meta(min_length=8, max_length=2048, pattern=_HTTP_URL)]
FileName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(?!\n)$")]
Pem = Annotated[str, Meta(min_length=1, max_length=PEM_CHARS_MAX)]
Algorithms = Annotated[tuple[JwtAlgorithm, ...], Meta(min_length=1, max_length=10)]
ClaimName = Annotated[str, Meta(min_length=1, max_length=128)]
ClaimPattern = Annotated[str, Meta(min_length=1, max_length=512)]
ClaimPatterns = Annotated[tuple[ClaimPattern, ...], Meta(min_length=1, max_length=64)]
Claims = Annotated[dict[ClaimName, ClaimPattern | ClaimPatterns], Meta(max_length=32)]
Texts = Annotated[tuple[ClaimPattern, ...], Meta(max_length=64)]
Fingerprint = Annotated[str, Meta(min_length=64, max_length=95, pattern=r"^[0-9A-Fa-f:]+(?!\n)$")]
Cidrs = Annotated[tuple[Address, ...], Meta(max_length=64)]
TokenScopes = Annotated[tuple[Scope, ...], Meta(max_length=64)]
TokenResources = Annotated[tuple[Pattern, ...], Meta(max_length=64)]
TokenTtl = Annotated[int, Meta(ge=1, le=TTL_SECONDS_MAX)]
Live = Annotated[int, Meta(ge=1, le=1_000_000)]
Uses = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request: unknown fields are refused."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response."""


class _Masked(msgspec.Struct, frozen=True, kw_only=True):
    """Something that may hold a secret; its repr shows none."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([redacted])"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


# --- methods -----------------------------------------------------------------------------------------------------


class JwtOptions(_Strict, frozen=True, kw_only=True):
    """How JSON Web Tokens of one issuer are proven; a preset gives what is left out.

    The issuer's keys come from one place: `jwks_url`, `discovery_url` (whose document names the `jwks_uri`), `jwks`
    (the key set itself), or `jwks_file` (a file in the folder `jwks` of the server's data, read again when it changes).
    `ca_pem` is trusted instead of the public certificate authorities.
    `lifetime_seconds_max` bounds how far ahead `exp` may lie.
    """

    issuer: Issuer | None = None
    jwks_url: HttpUrl | None = None
    discovery_url: HttpUrl | None = None
    jwks: dict[str, Any] | None = None
    jwks_file: FileName | None = None
    ca_pem: Pem | None = None
    algorithms: Algorithms | None = None
    leeway_seconds: Annotated[int, Meta(ge=0, le=LEEWAY_SECONDS_MAX)] | None = None
    lifetime_seconds_max: Annotated[int, Meta(ge=60, le=31_622_400)] | None = None


class KubernetesOptions(_Masked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The cluster whose API reviews tokens; `reviewer_token` may create `tokenreviews` there and is kept sealed.

    In an update, a `reviewer_token` that is left out stays, unless `url` or `ca_pem` change.
    """

    url: HttpUrl
    ca_pem: Pem | None = None
    reviewer_token: AssertionText | None = None


class CertificateOptions(_Strict, frozen=True, kw_only=True):
    """Which header of a listed proxy holds the client's certificate, and the authorities that issue such certificates.

    The header's value is a percent-encoded PEM certificate, or an `X-Forwarded-Client-Cert` list with its `Cert`.
    """

    ca_pem: Pem
    header: Annotated[str, Meta(min_length=1, max_length=64, pattern=_HEADER)] = "X-Forwarded-Client-Cert"


class CreateLoginMethod(_Strict, frozen=True, kw_only=True):
    """Create a way to log in; the options are those of its `kind`, and `approle` has none."""

    name: LoginName
    kind: LoginMethodKind | None = None
    preset: LoginPreset | None = None
    description: Description = ""
    jwt: JwtOptions | None = None
    kubernetes: KubernetesOptions | None = None
    certificate: CertificateOptions | None = None


class UpdateLoginMethod(_Strict, frozen=True, kw_only=True):
    """Change a way to log in; options take the place of those before.

    Every token of a disabled method is refused.
    """

    description: Description | UnsetType = UNSET
    state: LoginState | UnsetType = UNSET
    jwt: JwtOptions | UnsetType = UNSET
    kubernetes: KubernetesOptions | UnsetType = UNSET
    certificate: CertificateOptions | UnsetType = UNSET


class LoginMethodInfo(_Answer, frozen=True, kw_only=True):
    """A way to log in; `options` hold no secret."""

    id: str
    name: str
    kind: str
    preset: str | None
    description: str
    state: str
    options: dict[str, Any]
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class LoginMethodPage(_Answer, frozen=True, kw_only=True):
    """A page of login methods, oldest first."""

    items: tuple[LoginMethodInfo, ...]
    next_cursor: str | None


class LoginRemoved(_Answer, frozen=True, kw_only=True):
    """What was deleted; tokens that came from it are refused from the commit on."""

    method: str
    role: str | None = None


# --- roles -------------------------------------------------------------------------------------------------------


class JwtBinding(_Strict, frozen=True, kw_only=True):
    """Which tokens are let in: one of the audiences, and every claim with one of its patterns.

    Without an audience, or without a claim, nobody is let in.  With `single_use` a token logs in once, by its `jti`.
    """

    audiences: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=16)] = ()
    claims: Claims = {}
    single_use: bool = False


class KubernetesBinding(_Strict, frozen=True, kw_only=True):
    """Which service accounts are let in: patterns of namespace and of name, and an audience of the token."""

    namespaces: Annotated[tuple[ClaimPattern, ...], Meta(min_length=1, max_length=64)]
    service_accounts: Annotated[tuple[ClaimPattern, ...], Meta(min_length=1, max_length=64)]
    audiences: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=512)], ...], Meta(max_length=16)] = ()


class CertificateBinding(_Strict, frozen=True, kw_only=True):
    """Which certificates are let in: every list that is not empty has to hold one that matches.

    `names` are patterns of subject alternative names (DNS, URI, e-mail), `subjects` of the subject's common name, and
    `issuers` SHA-256 fingerprints of the authority's certificate.
    """

    names: Texts = ()
    subjects: Texts = ()
    issuers: Annotated[tuple[Fingerprint, ...], Meta(max_length=16)] = ()


class ApproleBinding(_Strict, frozen=True, kw_only=True):
    """What a new secret-id of the role gets unless its request says otherwise; `null` does not bound."""

    role_id: RoleId | None = None
    secret_id_ttl_seconds: Lifetime | None = None
    secret_id_uses: Uses | None = None
    secret_id_cidrs: Cidrs = ()


class CreateLoginRole(_Strict, frozen=True, kw_only=True):
    """Let the identities that the binding describes become a principal: a service or an agent, by id or name.

    A token of the role can do what `scopes` and `resources` leave of the principal's grants, from `cidrs` alone.
    """

    name: LoginName
    principal: Reference
    jwt: JwtBinding | None = None
    kubernetes: KubernetesBinding | None = None
    certificate: CertificateBinding | None = None
    approle: ApproleBinding | None = None
    scopes: TokenScopes = ()
    resources: TokenResources = ()
    cidrs: Cidrs = ()
    ttl_seconds: TokenTtl = TTL_SECONDS_DEFAULT
    max_ttl_seconds: TokenTtl = MAX_TTL_SECONDS_DEFAULT
    tokens_max: Live = TOKENS_MAX_DEFAULT
    leases_max: Live = LEASES_MAX_DEFAULT


class UpdateLoginRole(_Strict, frozen=True, kw_only=True):
    """Change a role; tokens that it gave before keep their bounds, and end when the role is deleted."""

    jwt: JwtBinding | UnsetType = UNSET
    kubernetes: KubernetesBinding | UnsetType = UNSET
    certificate: CertificateBinding | UnsetType = UNSET
    approle: ApproleBinding | UnsetType = UNSET
    scopes: TokenScopes | UnsetType = UNSET
    resources: TokenResources | UnsetType = UNSET
    cidrs: Cidrs | UnsetType = UNSET
    ttl_seconds: TokenTtl | UnsetType = UNSET
    max_ttl_seconds: TokenTtl | UnsetType = UNSET
    tokens_max: Live | UnsetType = UNSET
    leases_max: Live | UnsetType = UNSET


class LoginRoleInfo(_Answer, frozen=True, kw_only=True):
    """A role of a login method; `warnings` say what lets in more than it seems to."""

    id: str
    method: str
    name: str
    role_id: str
    principal: str
    jwt: JwtBinding | None = None
    kubernetes: KubernetesBinding | None = None
    certificate: CertificateBinding | None = None
    approle: ApproleBinding | None = None
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    cidrs: tuple[str, ...]
    ttl_seconds: int
    max_ttl_seconds: int
    tokens_max: int
    leases_max: int
    warnings: tuple[str, ...] = ()
    created_at: str
    created_by: str
    updated_at: str
    revision: int


class LoginRolePage(_Answer, frozen=True, kw_only=True):
    """A page of roles, oldest first."""

    items: tuple[LoginRoleInfo, ...]
    next_cursor: str | None


# --- secret-ids of AppRole ---------------------------------------------------------------------------------------


class IssueSecretId(_Strict, frozen=True, kw_only=True):
    """Make a secret-id; what is left out is what the role says, and `null` does not bound."""

    ttl_seconds: Lifetime | UnsetType | None = UNSET
    uses: Uses | UnsetType | None = UNSET
    cidrs: Cidrs | UnsetType = UNSET
    metadata: Metadata = {}


class WrapSecretId(IssueSecretId, frozen=True, kw_only=True):
    """Make a secret-id that only the holder of a wrapping token can take, once."""

    wrap_ttl_seconds: Annotated[int, Meta(ge=1, le=2_592_000)] = 300


class FindSecretId(_Masked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Name a secret-id by itself."""

    secret_id: SecretIdText


class SecretIdInfo(_Answer, frozen=True, kw_only=True):
    """What is known of a secret-id; `id` is its accessor."""

    id: str
    role: str
    state: str
    metadata: dict[str, str]
    cidrs: tuple[str, ...]
    uses_left: int | None
    created_at: str
    created_by: str
    expires_at: str | None
    last_used_at: str | None


class SecretIdIssued(_Masked, frozen=True, kw_only=True):
    """A new secret-id, shown once; a replay after 10 minutes has `null` there."""

    id: str
    role: str
    role_id: str
    secret_id: str | None
    ttl_seconds: int | None
    uses: int | None
    expires_at: str | None


class SecretIdPage(_Answer, frozen=True, kw_only=True):
    """A page of secret-ids, oldest first."""

    items: tuple[SecretIdInfo, ...]
    next_cursor: str | None


# --- logging in, and tokens --------------------------------------------------------------------------------------


class LogIn(_Masked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Log in by a method.

    `jwt` is for `jwt` and `kubernetes`, with a `role`; `role_id` and `secret_id` are for `approle`; a client
    certificate comes from the proxy, with a `role`.  Without `workspace` it is the one named `default`.
    """

    method: LoginName
    role: LoginName | None = None
    workspace: WorkspaceReference | None = None
    jwt: AssertionText | None = None
    role_id: RoleId | None = None
    secret_id: SecretIdText | None = None


class LoginAnswer(_Masked, frozen=True, kw_only=True):
    """A login token; `again` when the same assertion got it before."""

    token: str
    token_id: str
    principal: str
    principal_kind: str
    principal_name: str
    workspace: str
    method: str
    method_kind: str
    role: str
    subject: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    ttl_seconds: int
    renewable: bool
    created_at: str
    expires_at: str
    max_expires_at: str
    metadata: dict[str, str]
    again: bool


class IssueLoginToken(_Strict, frozen=True, kw_only=True):
    """Make a token below the caller's own: it can do no more, lives no longer, and ends with it."""

    ttl_seconds: TokenTtl | None = None
    max_ttl_seconds: TokenTtl | None = None
    renewable: bool = True
    scopes: TokenScopes = ()
    resources: TokenResources = ()
    subject: Line | None = None
    metadata: Metadata = {}


class RenewLoginToken(_Strict, frozen=True, kw_only=True):
    """Let a token live on, from now; by its own time to live unless said otherwise, and never past its maximum."""

    ttl_seconds: TokenTtl | None = None


class LoginTokenInfo(_Answer, frozen=True, kw_only=True):
    """What is known of a token; `kind` is `login`, or `management` for the caller's own that came from no login.

    Of a management token without an end `expires_at` is null and `ttl_seconds` 0.
    """

    id: str
    kind: str
    principal: str
    method: str | None
    role: str | None
    parent: str | None
    subject: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    cidrs: tuple[str, ...]
    metadata: dict[str, str]
    renewable: bool
    creation_ttl_seconds: int
    ttl_seconds: int
    state: str
    created_at: str | None
    expires_at: str | None
    max_expires_at: str | None
    revoked_at: str | None


class LoginTokenIssued(_Masked, frozen=True, kw_only=True):
    """A token made below the caller's own, shown this once."""

    token: str
    info: LoginTokenInfo


class LoginTokenPage(_Answer, frozen=True, kw_only=True):
    """A page of login tokens, oldest first."""

    items: tuple[LoginTokenInfo, ...]
    next_cursor: str | None


class LoginTokenRevoked(_Answer, frozen=True, kw_only=True):
    """A revoked token, and how many below it went with it; the database refuses them all from the commit on."""

    id: str
    revoked: int
