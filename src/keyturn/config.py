"""Settings: one frozen value, read once from the environment.

Every setting is a variable `KEYTURN_<NAME>`.  `KEYTURN_<NAME>_FILE` reads it from a file instead, for the
settings marked secret.  An unknown `KEYTURN_` variable is an error, so that a misspelt one is not a silent
default.  This is the only module that reads the environment.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import msgspec

from keyturn.errors import ConfigError
from keyturn.kernel.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX = "KEYTURN_"
_VALKEY_SCHEMES = frozenset({"redis", "rediss", "unix", "valkey", "valkeys"})
_DATABASE_SCHEMES = frozenset({"postgresql", "postgres", "postgresql+asyncpg"})


class Setting(msgspec.Struct, frozen=True):
    """One setting as the docs and checks see it."""

    name: str
    default: str
    doc: str
    example: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


SETTINGS: tuple[Setting, ...] = (
    Setting("data", "./data", "The data folder: SQLite file, root key, admin token, lock.", "/var/lib/keyturn"),
    Setting("host", "127.0.0.1", "Address to listen on; one that is not loopback needs TLS.", "0.0.0.0"),  # noqa: S104
    Setting("port", "8700", "Port to listen on.", "8700"),
    Setting(
        "database_url",
        "",
        "PostgreSQL as postgresql://user:password@host/name; empty means SQLite in the data folder.",
        "postgresql://keyturn@db/keyturn",
        secret=True,
    ),
    Setting(
        "valkey_url",
        "",
        "Valkey or Redis for limits that are exact over all workers and servers; rediss:// is with TLS.",
        "redis://cache:6379/0",
        secret=True,
    ),
    Setting(
        "limits",
        "exact",
        "`exact`, or `per_worker`: each worker counts by itself, so n workers admit up to n times a limit.",
        "per_worker",
    ),
    Setting(
        "workers",
        "1",
        "Worker processes; more than one needs PostgreSQL, and Valkey or KEYTURN_LIMITS=per_worker.",
        "2",
    ),
    Setting("tls_cert", "", "PEM certificate chain to serve TLS with.", "/etc/keyturn/tls.pem"),
    Setting("tls_key", "", "PEM private key (PKCS#8) that belongs to it.", "/etc/keyturn/tls.key"),
    Setting(
        "tls",
        "",
        "`terminated` when a proxy in front terminates TLS; then trusted_proxies must list it.",
        "terminated",
    ),
    Setting("trusted_proxies", "", "Networks of proxies whose forwarding headers count, by comma.", "10.0.0.0/8"),
    Setting(
        "kek_provider",
        "file",
        "Where root keys (KEKs) come from, by comma: the first seals, all open. `file`, `env`, `passphrase`, "
        "`aws-kms`, `gcp-kms`, `azure-keyvault`, `vault-transit`.",
        "aws-kms,file",
    ),
    Setting("kek_path", "", "File of the root keys; empty means `kek` in the data folder.", "/run/secrets/kek"),
    Setting("kek", "", "Root keys for `env`, one a line; the last seals.", "keyturn-kek-v1 kek_… …", secret=True),
    Setting("kek_previous", "", "Root keys for `env` that only open.", "keyturn-kek-v1 kek_… …", secret=True),
    Setting("kek_passphrase", "", "What `passphrase` derives root keys from.", "six words at random", secret=True),
    Setting("kek_passphrase_previous", "", "The passphrase before it, which only opens.", "the old one", secret=True),
    Setting("kek_aws_keys", "", "Keys for `aws-kms`, by comma; the first seals.", "alias/keyturn"),
    Setting("kek_aws_region", "", "Region of AWS KMS; empty means what the AWS SDK finds.", "eu-central-1"),
    Setting("kek_aws_endpoint", "", "Another address of AWS KMS.", "https://kms.internal.example"),
    Setting(
        "kek_gcp_keys",
        "",
        "Keys for `gcp-kms`, by comma; the first seals.",
        "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    ),
    Setting("kek_gcp_endpoint", "", "Another address of Cloud KMS.", "cloudkms.internal.example"),
    Setting(
        "kek_azure_keys",
        "",
        "Keys for `azure-keyvault`, by comma; the first seals.",
        "https://v.vault.azure.net/keys/keyturn",
    ),
    Setting("kek_vault_address", "", "Server for `vault-transit`.", "https://vault.example.com:8200"),
    Setting("kek_vault_keys", "transit/keyturn", "Keys for `vault-transit`, by comma; the first seals.", "transit/k2"),
    Setting("kek_vault_namespace", "", "Namespace for `vault-transit`.", "team-a"),
    Setting("kek_vault_token", "", "Token for `vault-transit`.", "hvs.…", secret=True),
    Setting("workspace_key_days", "365", "A workspace key that is older is rotated; 0 means never.", "90"),
    Setting(
        "checkpoint_sink",
        "",
        "Where signed audit checkpoints also go: a file path or an https:// address.",
        "/mnt/worm/checkpoints.jsonl",
    ),
    Setting(
        "webhook_allow",
        "",
        "Networks that webhooks may be sent to although they are not the internet, by comma; http too.",
        "10.20.0.0/16",
    ),
    Setting(
        "source_allow",
        "",
        "Networks that credential sources may be in although they are not the internet, by comma; http too.",
        "10.40.0.0/16",
    ),
    Setting(
        "login_allow",
        "",
        "Networks that token issuers and clusters may be in although they are not the internet, by comma; http too.",
        "10.30.0.0/16",
    ),
    Setting(
        "leaked_keys",
        "open",
        "`open`: whoever holds a key may ask about it and report it, without a token; or `off`.",
        "off",
    ),
    Setting("log_level", "info", "Lowest level that is logged: debug, info, warning, error.", "warning"),
    Setting("log_format", "auto", "`json`, `console`, or `auto` (console on a terminal).", "json"),
    Setting("shutdown_seconds", "20", "How long a stop may take before it is forced.", "20"),
    Setting("url", "http://127.0.0.1:8700", "Address of the server, for the command line.", "https://keys.example.com"),
    Setting("token", "", "Management token, for the command line.", "kt_mgmt_…", secret=True),
    Setting("profile", "", "Profile saved by `keyturn login`, for the command line.", "production"),
)
"""Every setting; the reference in the docs is checked against this list."""


class Settings(msgspec.Struct, frozen=True):
    """All settings, parsed; secrets are masked in its repr."""

    data: Path = Path("data")
    host: str = "127.0.0.1"
    port: int = 8700
    database_url: Secret | None = None
    valkey_url: Secret | None = None
    limits: str = "exact"
    workers: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls: Literal["", "terminated"] = ""
    trusted_proxies: tuple[Network, ...] = ()
    kek_provider: str = "file"
    kek_file: Path | None = None
    kek: Secret | None = None
    kek_previous: Secret | None = None
    kek_passphrase: Secret | None = None
    kek_passphrase_previous: Secret | None = None
    kek_aws_keys: tuple[str, ...] = ()
    kek_aws_region: str = ""
    kek_aws_endpoint: str = ""
    kek_gcp_keys: tuple[str, ...] = ()
    kek_gcp_endpoint: str = ""
    kek_azure_keys: tuple[str, ...] = ()
    kek_vault_address: str = ""
    kek_vault_keys: tuple[str, ...] = ("transit/keyturn",)
    kek_vault_namespace: str = ""
    kek_vault_token: Secret | None = None
    workspace_key_days: int = 365
    checkpoint_sink: str = ""
    webhook_allow: tuple[Network, ...] = ()
    source_allow: tuple[Network, ...] = ()
    login_allow: tuple[Network, ...] = ()
    leaked_keys: str = "open"
    log_level: str = "info"
    log_format: str = "auto"
    shutdown_seconds: int = 20
    url: str = "http://127.0.0.1:8700"
    token: Secret | None = None
    profile: str = ""

    @property
    def sqlite_path(self) -> Path:
        """The SQLite file."""
        return self.data / "keyturn.db"

    @property
    def asyncpg_url(self) -> str | None:
        """The PostgreSQL address in the driver's form, None for SQLite.  Holds a password: never log it."""
        if self.database_url is None:
            return None
        _, _, rest = self.database_url.reveal().partition("://")
        return f"postgresql+asyncpg://{rest}"

    @property
    def serves_tls(self) -> bool:
        """Whether the server itself speaks TLS."""
        return self.tls_cert is not None and self.tls_key is not None

    @property
    def is_loopback(self) -> bool:
        """Whether the listening address is reachable from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check_serving(self) -> None:
        """Refuse settings that would be unsafe to serve with; raises ConfigError saying what to set."""
        if (self.tls_cert is None) != (self.tls_key is None):
            message = "only one of KEYTURN_TLS_CERT and KEYTURN_TLS_KEY is set"
            raise ConfigError(message, hint="set both")
        if self.tls == "terminated" and not self.trusted_proxies:
            message = "KEYTURN_TLS=terminated needs KEYTURN_TRUSTED_PROXIES"
            raise ConfigError(message, hint="list the networks of the proxies in front, for example 10.0.0.0/8")
        if not self.is_loopback and not self.serves_tls and self.tls != "terminated":
            message = f"{self.host} can be reached from other machines, and TLS is not set up"
            raise ConfigError(
                message,
                hint="set KEYTURN_TLS_CERT and KEYTURN_TLS_KEY, or KEYTURN_TLS=terminated with KEYTURN_TRUSTED_PROXIES",
            )
        if self.workers > 1 and self.database_url is None:
            message = f"KEYTURN_WORKERS={self.workers} needs PostgreSQL; SQLite is for exactly one worker"
            raise ConfigError(message, hint="set KEYTURN_DATABASE_URL, or KEYTURN_WORKERS=1")
        self._check_limits()

    def _check_limits(self) -> None:
        if self.limits == "per_worker" and self.valkey_url is not None:
            message = "KEYTURN_LIMITS=per_worker and KEYTURN_VALKEY_URL are both set"
            raise ConfigError(message, hint="take one away: with Valkey limits are exact, per worker they are not")
        if self.workers > 1 and self.valkey_url is None and self.limits != "per_worker":
            message = (
                f"KEYTURN_WORKERS={self.workers} needs Valkey, or limits would be {self.workers} times what they say"
            )
            raise ConfigError(
                message,
                hint="set KEYTURN_VALKEY_URL, or KEYTURN_LIMITS=per_worker to let each worker count by itself",
            )


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Parse the environment; raises ConfigError naming the variable, never showing a secret's value."""
    given = dict(os.environ if environ is None else environ)
    known = {setting.variable: setting for setting in SETTINGS}
    values: dict[str, str] = {}
    for variable, value in given.items():
        if not variable.startswith(PREFIX):
            continue
        setting = known.get(variable) or known.get(variable.removesuffix("_FILE"))
        if setting is None or (variable != setting.variable and not setting.secret):
            raise _unknown(variable, known)
        if not value:
            continue
        if setting.name in values:
            message = f"{setting.variable} and {setting.variable}_FILE are both set"
            raise ConfigError(message, hint="set one of them")
        values[setting.name] = value if variable == setting.variable else _read_secret(variable, value)
    return _parse(values)


def inherited_environment() -> dict[str, str]:
    """Return the environment that a child process gets: this one's, without the settings that are secret."""
    ours = {name for one in SETTINGS if one.secret for name in (one.variable, f"{one.variable}_FILE")}
    return {name: value for name, value in os.environ.items() if name not in ours}


def own_environment() -> dict[str, str]:
    """Return the environment that another process of this very program gets: all of this one's, with its secrets."""
    return dict(os.environ)


def server_url(environ: Mapping[str, str] | None = None) -> str:
    """Return the address of the server alone, for `keyturn login`: what else is set may not be there yet."""
    given = os.environ if environ is None else environ
    return _url(given.get(f"{PREFIX}URL") or Settings().url)


def _unknown(variable: str, known: Iterable[str]) -> ConfigError:
    from difflib import get_close_matches

    name = variable.removeprefix(PREFIX)
    hint = "see docs/operations/settings.md; a misspelt name is refused"
    if name.startswith(("SERVICE_", "PORT_")):
        hint = "Kubernetes sets it for a service named keyturn: set `enableServiceLinks: false` in the pod"
    elif near := get_close_matches(name, [one.removeprefix(PREFIX) for one in known], 1, 0.7):
        hint = f"did you mean {PREFIX}{near[0]}?"
    return ConfigError(f"{variable} is not a setting", hint=hint)


def _read_secret(variable: str, path: str) -> str:
    try:
        text = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        message = f"{variable} names {path!r}, which cannot be read"
        raise ConfigError(message, hint="check the path and its mode", internal=type(error).__name__) from None
    if not text:
        message = f"{variable} names {path!r}, which is empty"
        raise ConfigError(message)
    return text


def _url(text: str) -> str:
    """Return the address of a server; raises ConfigError for what cannot be one."""
    hint = "for example http://127.0.0.1:8700 or https://keys.example.com"
    if "@" in text:  # what stands before it may be a password, and is not shown
        message = f"{PREFIX}URL holds a user name; expected the address of a server alone"
        raise ConfigError(message, hint=hint)
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        named = False
    if not named or parts.query or parts.fragment or not text.isprintable() or " " in text:
        message = f"{PREFIX}URL is {text[:64]!r}; expected the address of a server"
        raise ConfigError(message, hint=hint)
    return text.rstrip("/")


def _check_database_url(text: str) -> None:
    """Refuse what is no PostgreSQL address; the text may hold a password and is not shown."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in _DATABASE_SCHEMES and not parts.fragment and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "://" not in text:
        message = f"{PREFIX}DATABASE_URL is not of the form postgresql://user:password@host:port/name"
        raise ConfigError(message, hint="percent-encode what is special in the password; leave it empty to use SQLite")


def _check_valkey_url(text: str) -> None:
    """Refuse what names no Valkey; the text may hold a password and is not shown."""
    scheme, separator, rest = text.partition("://")
    if scheme not in _VALKEY_SCHEMES or not separator or not rest:
        message = f"{PREFIX}VALKEY_URL is not of the form redis://user:password@host:port/0"
        raise ConfigError(message, hint="rediss:// speaks TLS, and unix://:password@/path names a socket")


def _parse(values: dict[str, str]) -> Settings:
    if "database_url" in values:
        _check_database_url(values["database_url"])
    if "valkey_url" in values:
        _check_valkey_url(values["valkey_url"])
    tls = values.get("tls", "")
    if tls not in {"", "terminated"}:
        message = f"KEYTURN_TLS is {tls[:32]!r}; expected `terminated` or nothing"
        raise ConfigError(message)
    return Settings(
        data=Path(values.get("data", "data")),
        host=values.get("host", "127.0.0.1"),
        port=_integer(values, "port", 8700, 0, 65535),
        database_url=_secret(values, "database_url"),
        valkey_url=_secret(values, "valkey_url"),
        limits=_choice(values, "limits", "exact", ("exact", "per_worker")),
        workers=_integer(values, "workers", 1, 1, 64),
        tls_cert=_path(values, "tls_cert"),
        tls_key=_path(values, "tls_key"),
        tls="terminated" if tls else "",
        trusted_proxies=_networks(values, "trusted_proxies"),
        kek_provider=values.get("kek_provider", "file"),
        kek_file=_path(values, "kek_path"),
        kek=_secret(values, "kek"),
        kek_previous=_secret(values, "kek_previous"),
        kek_passphrase=_secret(values, "kek_passphrase"),
        kek_passphrase_previous=_secret(values, "kek_passphrase_previous"),
        kek_aws_keys=_list(values, "kek_aws_keys"),
        kek_aws_region=values.get("kek_aws_region", ""),
        kek_aws_endpoint=values.get("kek_aws_endpoint", ""),
        kek_gcp_keys=_list(values, "kek_gcp_keys"),
        kek_gcp_endpoint=values.get("kek_gcp_endpoint", ""),
        kek_azure_keys=_list(values, "kek_azure_keys"),
        kek_vault_address=values.get("kek_vault_address", "").rstrip("/"),
        kek_vault_keys=_list(values, "kek_vault_keys", "transit/keyturn"),
        kek_vault_namespace=values.get("kek_vault_namespace", ""),
        kek_vault_token=_secret(values, "kek_vault_token"),
        workspace_key_days=_integer(values, "workspace_key_days", 365, 0, 3650),
        checkpoint_sink=values.get("checkpoint_sink", ""),
        webhook_allow=_networks(values, "webhook_allow"),
        source_allow=_networks(values, "source_allow"),
        login_allow=_networks(values, "login_allow"),
        leaked_keys=_choice(values, "leaked_keys", "open", ("open", "off")),
        log_level=_choice(values, "log_level", "info", ("debug", "info", "warning", "error")),
        log_format=_choice(values, "log_format", "auto", ("auto", "json", "console")),
        shutdown_seconds=_integer(values, "shutdown_seconds", 20, 1, 600),
        url=_url(values.get("url", "http://127.0.0.1:8700")),
        token=_secret(values, "token"),
        profile=values.get("profile", ""),
    )


def _integer(values: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    if not low <= number <= high:
        message = f"{PREFIX}{name.upper()} is {text[:32]!r}; expected a whole number from {low} to {high}"
        raise ConfigError(message)
    return number


def _choice(values: dict[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    text = values.get(name, default)
    if text not in allowed:
        message = f"{PREFIX}{name.upper()} is {text[:32]!r}; expected one of {', '.join(allowed)}"
        raise ConfigError(message)
    return text


def _secret(values: dict[str, str], name: str) -> Secret | None:
    return Secret(values[name]) if name in values else None


def _list(values: dict[str, str], name: str, default: str = "") -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in values.get(name, default).split(",")) if part)


def _path(values: dict[str, str], name: str) -> Path | None:
    return Path(values[name]) if name in values else None


def _networks(values: dict[str, str], name: str) -> tuple[Network, ...]:
    networks: list[Network] = []
    for part in filter(None, (piece.strip() for piece in values.get(name, "").split(","))):
        try:
            networks.append(ipaddress.ip_network(part))
        except ValueError as error:
            message = f"{PREFIX}{name.upper()} holds {part[:64]!r}, which is not a network"
            raise ConfigError(message, hint="write networks such as 10.0.0.0/8, separated by commas") from error
    return tuple(networks)
