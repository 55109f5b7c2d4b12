"""Ready issuers: what a preset gives a method, and what each kind of binding leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError
from keyturn.logins.claims import as_patterns
from keyturn.logins.jwt import LEEWAY_SECONDS_DEFAULT, LIFETIME_SECONDS_MAX_DEFAULT
from keyturn.wire.logins import ALGORITHMS_DEFAULT, JwtOptions

if TYPE_CHECKING:
    from keyturn.wire.logins import JwtAlgorithm, JwtBinding

GITHUB: Final = "github-actions"
GITLAB: Final = "gitlab"
KUBERNETES: Final = "kubernetes"


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of an issuer; `strong` are the claims that name one workload for good."""

    issuer: str | None
    jwks_url: str | None
    algorithms: tuple[JwtAlgorithm, ...]
    lifetime_seconds_max: int
    strong: tuple[str, ...]
    reused: tuple[str, ...]
    """Claims that hold names, which somebody else can have later."""


PRESETS: Final[dict[str, Preset]] = {
    GITHUB: Preset(
        issuer="https://token.actions.githubusercontent.com",
        jwks_url="https://token.actions.githubusercontent.com/.well-known/jwks",
        algorithms=("RS256",),
        lifetime_seconds_max=21_600,
        strong=("repository_id", "repository_owner_id", "sub", "job_workflow_ref"),
        reused=("repository", "repository_owner"),
    ),
    GITLAB: Preset(
        issuer="https://gitlab.com",
        jwks_url="https://gitlab.com/oauth/discovery/keys",
        algorithms=("RS256",),
        lifetime_seconds_max=86_400,
        strong=("project_id", "namespace_id", "sub"),
        reused=("project_path", "namespace_path"),
    ),
    KUBERNETES: Preset(
        issuer=None,
        jwks_url=None,
        algorithms=("RS256", "ES256"),
        lifetime_seconds_max=86_400,
        strong=("sub", "/kubernetes.io/serviceaccount/uid", "/kubernetes.io/serviceaccount/name"),
        reused=(),
    ),
}


def complete(given: JwtOptions | None, preset: str | None) -> JwtOptions:
    """Return the options with what the preset and the defaults say; raises InputError when something is missing."""
    options = given or JwtOptions()
    known = PRESETS.get(preset or "")
    issuer = options.issuer or (known.issuer if known else None)
    if issuer is None:
        raise InputError("expected the issuer, as tokens name it in `iss`", field="jwt.issuer")
    sources = (options.jwks_url, options.discovery_url, options.jwks, options.jwks_file)
    count = sum(one is not None for one in sources)
    # The preset's address is for the preset's issuer alone: keys of one must never prove tokens of another.
    from_preset = known is not None and known.jwks_url is not None and issuer == known.issuer
    if count > 1 or (count == 0 and not from_preset):
        raise InputError(
            f"expected one source of the issuer's keys, found {count}",
            field="jwt.jwks_url",
            hint="give jwks_url, discovery_url, jwks or jwks_file",
        )
    return JwtOptions(
        issuer=issuer,
        jwks_url=known.jwks_url if known is not None and count == 0 else options.jwks_url,
        discovery_url=options.discovery_url,
        jwks=options.jwks,
        jwks_file=options.jwks_file,
        ca_pem=options.ca_pem,
        algorithms=options.algorithms or (known.algorithms if known else ALGORITHMS_DEFAULT),
        leeway_seconds=LEEWAY_SECONDS_DEFAULT if options.leeway_seconds is None else options.leeway_seconds,
        lifetime_seconds_max=options.lifetime_seconds_max
        or (known.lifetime_seconds_max if known else LIFETIME_SECONDS_MAX_DEFAULT),
    )


def weaknesses(binding: JwtBinding, preset: str | None) -> tuple[str, ...]:
    """Say what a binding lets in beyond one workload."""
    known = PRESETS.get(preset or "")
    strong = known.strong if known else tuple(binding.claims)
    held = [name for name in strong if name in binding.claims and not _is_open(binding.claims[name])]
    found: list[str] = []
    if not held:
        wanted = " or ".join(known.strong if known else ("sub",))
        found.append(f"no claim names one workload: bind {wanted}")
    if known is not None:
        names = [name for name in known.reused if name in binding.claims]
        ids = [name for name in held if name.endswith("_id")]
        if names and not ids:
            found.append(f"{names[0]} is a name that somebody else can have later: bind {known.strong[0]} too")
    found.extend(f"{name} is bound to any text" for name, given in binding.claims.items() if "*" in as_patterns(given))
    return tuple(found)


def _is_open(given: str | tuple[str, ...]) -> bool:
    """Tell whether a pattern lets in what anybody can have: `*`, or the beginning that all of an issuer's share."""
    return any(one in ("*", "repo:*", "project_path:*", "system:serviceaccount:*") for one in as_patterns(given))
