import traceback
from pathlib import Path

import pytest

from keyturn.config import PREFIX, SETTINGS, Settings, load_settings, server_url
from keyturn.errors import ConfigError
from keyturn.kernel.secret import Secret

HIDDEN = "hunter" + "2hunter2"
ANYWHERE = "0.0.0.0"  # noqa: S104 -- settings are parsed, nothing listens


def test_nothing_set_is_a_safe_local_server() -> None:
    settings = load_settings({})

    assert settings == Settings()
    assert settings.is_loopback
    assert settings.asyncpg_url is None
    assert settings.sqlite_path == Path("data/keyturn.db")
    settings.check_serving()


def test_empty_means_not_set() -> None:
    assert load_settings({setting.variable: "" for setting in SETTINGS}) == Settings()


def test_other_programs_variables_are_left_alone() -> None:
    assert load_settings({"PATH": "/bin", "KEYTURNED": "x", "keyturn_port": "1"}) == Settings()


def test_every_setting_is_read() -> None:
    values = {
        "data": "/var/lib/keyturn",
        "host": ANYWHERE,
        "port": "443",
        "database_url": "postgresql://keyturn@db/keyturn",
        "valkey_url": "redis://cache:6379/0",
        "limits": "per_worker",
        "workers": "2",
        "tls_cert": "/tls.pem",
        "tls_key": "/tls.key",
        "tls": "terminated",
        "trusted_proxies": "10.0.0.0/8, fd00::/8",
        "kek_provider": "env",
        "kek_path": "/kek",
        "kek": "x",
        "kek_previous": "y",
        "kek_passphrase": "z",
        "kek_passphrase_previous": "before z",
        "kek_aws_keys": "alias/a, alias/b",
        "kek_aws_region": "eu-central-1",
        "kek_aws_endpoint": "https://kms.example.com",
        "kek_gcp_keys": "projects/p",
        "kek_gcp_endpoint": "kms.example.com",
        "kek_azure_keys": "https://v.vault.azure.net/keys/k",
        "kek_vault_address": "https://vault.example.com/",
        "kek_vault_keys": "transit/a,transit/b",
        "kek_vault_namespace": "team",
        "kek_vault_token": "t",
        "workspace_key_days": "90",
        "checkpoint_sink": "/mnt/checkpoints",
        "webhook_allow": "10.20.0.0/16",
        "source_allow": "10.40.0.0/16",
        "leaked_keys": "off",
        "login_allow": "10.30.0.0/16",
        "log_level": "warning",
        "log_format": "json",
        "shutdown_seconds": "5",
        "url": "https://keys.example.com/",
        "token": "t",
        "profile": "production",
    }
    assert set(values) == {setting.name for setting in SETTINGS}
    settings = load_settings({PREFIX + name.upper(): value for name, value in values.items()})
    default = Settings()

    for name in Settings.__struct_fields__:
        assert getattr(settings, name) != getattr(default, name), name
    assert settings.asyncpg_url == "postgresql+asyncpg://keyturn@db/keyturn"
    assert settings.url == "https://keys.example.com"
    assert settings.kek_aws_keys == ("alias/a", "alias/b")
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "fd00::/8"]


def test_every_example_is_accepted_unless_it_is_an_ellipsis() -> None:
    for setting in SETTINGS:
        if "…" not in setting.example:
            load_settings({setting.variable: setting.example})


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("KEYTURN_PROT", "did you mean KEYTURN_PORT?"),
        ("KEYTURN_DATABASE_URI", "did you mean KEYTURN_DATABASE_URL?"),
        ("KEYTURN_SERVICE_HOST", "enableServiceLinks"),
        ("KEYTURN_SOMETHING_ELSE_ENTIRELY", "settings.md"),
        ("KEYTURN_DATA_FILE", "settings.md"),
    ],
)
def test_misspelt_variable_is_no_silent_default(variable: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        load_settings({variable: "1"})
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KEYTURN_PORT", "-1"),
        ("KEYTURN_PORT", "65536"),
        ("KEYTURN_PORT", "eighty"),
        ("KEYTURN_PORT", "8\u0660"),
        ("KEYTURN_PORT", "1e3"),
        ("KEYTURN_PORT", "9" * 5000),
        ("KEYTURN_WORKERS", "0"),
        ("KEYTURN_LIMITS", "roughly"),
        ("KEYTURN_SHUTDOWN_SECONDS", "0"),
        ("KEYTURN_TLS", "yes"),
        ("KEYTURN_LOG_LEVEL", "loud"),
        ("KEYTURN_LOG_FORMAT", "xml"),
        ("KEYTURN_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("KEYTURN_TRUSTED_PROXIES", "proxy.example.com"),
    ],
)
def test_wrong_value_is_named_with_what_was_expected(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        load_settings({variable: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "url",
    [
        f"keyturn:{HIDDEN}@db/keyturn",
        f"mysql://keyturn:{HIDDEN}@db/keyturn",
        f"postgresql:/keyturn:{HIDDEN}@db/keyturn",
        f"postgresql://keyturn:{HIDDEN}#x@db/keyturn",
        f"postgresql://keyturn:{HIDDEN}@db:port/keyturn",
        f"postgresql://keyturn:{HIDDEN}@[db/keyturn",
        HIDDEN,
    ],
)
def test_wrong_database_address_is_refused_and_not_shown(url: str) -> None:
    """It may hold a password."""
    with pytest.raises(ConfigError, match="KEYTURN_DATABASE_URL") as caught:
        load_settings({"KEYTURN_DATABASE_URL": url})
    assert HIDDEN not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db/keyturn",
        "postgres://keyturn:p%40ss@db:5433/keyturn?sslmode=require",
        "postgresql:///keyturn?host=/var/run/postgresql",
        "postgresql+asyncpg://keyturn@[::1]/keyturn",
    ],
)
def test_forms_of_a_database_address(url: str) -> None:
    settings = load_settings({"KEYTURN_DATABASE_URL": url})
    assert settings.asyncpg_url == "postgresql+asyncpg://" + url.partition("://")[2]


def test_secrets_are_masked_wherever_settings_are_shown() -> None:
    """Settings end up in logs and crash reports."""
    secret = {setting.variable: f"postgresql://k:{HIDDEN}@db/k" for setting in SETTINGS if setting.secret}
    secret["KEYTURN_VALKEY_URL"] = f"rediss://k:{HIDDEN}@cache"
    settings = load_settings(secret)

    assert HIDDEN not in f"{settings!r} {settings}"
    for setting in SETTINGS:
        if setting.secret:
            assert isinstance(getattr(settings, setting.name), Secret)


def test_secret_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("value\n")
    token = load_settings({"KEYTURN_TOKEN_FILE": str(path)}).token

    assert token is not None
    assert token.reveal() == "value"


def test_secret_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("value")
    for order in (1, -1):
        given = [("KEYTURN_TOKEN_FILE", str(tmp_path / "secret")), ("KEYTURN_TOKEN", "other")][::order]
        with pytest.raises(ConfigError, match="both set"):
            load_settings(dict(given))


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"], ids=["absent", "empty", "blank", "not UTF-8"])
def test_file_without_a_secret_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="KEYTURN_TOKEN_FILE"):
        load_settings({"KEYTURN_TOKEN_FILE": str(path)})


@pytest.mark.parametrize(
    "given",
    [
        {"HOST": ANYWHERE},
        {"HOST": "192.0.2.1"},
        {"HOST": "::"},
        {"HOST": "keys.example.com"},
        {"HOST": ANYWHERE, "TRUSTED_PROXIES": "10.0.0.0/8"},
        {"TLS": "terminated"},
        {"TLS_CERT": "/tls.pem"},
        {"TLS_KEY": "/tls.key"},
        {"WORKERS": "2"},
    ],
    ids=str,
)
def test_unsafe_settings_are_not_served(given: dict[str, str]) -> None:
    """Management tokens do not travel over a network in the clear."""
    settings = load_settings({PREFIX + name: value for name, value in given.items()})
    with pytest.raises(ConfigError) as caught:
        settings.check_serving()
    assert caught.value.hint


@pytest.mark.parametrize(
    "given",
    [
        {"HOST": "::1"},
        {"HOST": "127.0.0.2"},
        {"HOST": "localhost"},
        {"HOST": ANYWHERE, "TLS_CERT": "/tls.pem", "TLS_KEY": "/tls.key"},
        {"HOST": ANYWHERE, "TLS": "terminated", "TRUSTED_PROXIES": "10.0.0.0/8"},
        {"WORKERS": "2", "DATABASE_URL": "postgresql://db/keyturn", "LIMITS": "per_worker"},
    ],
    ids=str,
)
def test_safe_settings_are_served(given: dict[str, str]) -> None:
    load_settings({PREFIX + name: value for name, value in given.items()}).check_serving()


def test_settings_document_themselves() -> None:
    for setting in SETTINGS:
        assert setting.doc.endswith(".")
        assert setting.example
        assert setting.variable == PREFIX + setting.name.upper()


def _workers(**more: str) -> Settings:
    given = {"KEYTURN_WORKERS": "2", "KEYTURN_DATABASE_URL": "postgresql://keyturn@db/keyturn"}
    return load_settings(given | more)


def test_several_workers_never_count_apart_unless_that_was_asked_for() -> None:
    """A limit would quietly be as many times what it says as there are workers."""
    with pytest.raises(ConfigError, match="KEYTURN_WORKERS=2") as caught:
        _workers().check_serving()

    assert "KEYTURN_LIMITS=per_worker" in (caught.value.hint or "")
    _workers(KEYTURN_LIMITS="per_worker").check_serving()
    _workers(KEYTURN_VALKEY_URL="valkeys://cache").check_serving()
    with pytest.raises(ConfigError, match="both set"):
        _workers(KEYTURN_LIMITS="per_worker", KEYTURN_VALKEY_URL="redis://cache").check_serving()


@pytest.mark.parametrize("address", ["cache:6379", "http://cache", "redis://", f"{HIDDEN}@cache"])
def test_what_names_no_valkey_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ConfigError, match="KEYTURN_VALKEY_URL") as caught:
        load_settings({"KEYTURN_VALKEY_URL": address})

    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://keys.example", "keys.example.com", "https://", "http:///", "http://a b/"])
def test_an_address_that_is_none_of_a_server_says_so(url: str) -> None:
    for read in (lambda: load_settings({f"{PREFIX}URL": url}), lambda: server_url({f"{PREFIX}URL": url})):
        with pytest.raises(ConfigError, match="expected the address of a server"):
            read()
