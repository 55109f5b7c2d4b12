from __future__ import annotations

from functools import cache
from importlib import resources

import pytest

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.generic import Ground, ground_of, may_begin
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.engine.planning import look_for
from keyturn.scanner.ruleset.load import parse_rules, shipped_rules, without_samples
from keyturn.scanner.ruleset.model import Ruleset
from keyturn.scanner.ruleset.samples import expand


@cache
def engine(*, fallback: bool = True) -> Engine:
    text = resources.files("keyturn.scanner.ruleset").joinpath("data", "generic.toml").read_text("utf-8")
    rules = tuple(without_samples(rule) for rule in parse_rules(text, "generic.toml"))
    return open_engine(Ruleset(name="generic", rules=rules), cache=None, fallback=fallback)


def found(text: str, path: str = "src/app.py", using: Engine | None = None) -> list[str]:
    data = text.encode()
    return [data[one.secret_start : one.secret_end].decode() for one in (using or engine()).detect(data, path)]


SYNTAXES = {
    "python": ("app.py", 'API_KEY = "VALUE"'),
    "python-bytes": ("app.py", "secret_key = b'VALUE'"),
    "python-annotated": ("app.py", 'password: str = "VALUE"'),
    "python-keyword": ("app.py", 'connect(host, password="VALUE")'),
    "python-dict": ("app.py", 'settings["client_secret"] = "VALUE"'),
    "javascript": ("app.js", "const authToken = 'VALUE';"),
    "javascript-object": ("app.js", "  apiKey: 'VALUE',"),
    "template-literal": ("app.ts", "accessToken = `VALUE`"),
    "typescript": ("app.ts", 'private readonly secretKey: string = "VALUE";'),
    "minified": ("app.min.js", '!function(){var e={apiKey:"VALUE",x:1}}()'),
    "go": ("main.go", 'clientSecret := "VALUE"'),
    "go-constant": ("main.go", 'const APIToken string = "VALUE"'),
    "go-bytes": ("main.go", 'jwtKey := []byte("VALUE")'),
    "java": ("App.java", 'private static final String PASSWORD = "VALUE";'),
    "kotlin": ("App.kt", 'val apiSecret: String = "VALUE"'),
    "csharp": ("App.cs", 'public const string AuthToken = @"VALUE";'),
    "ruby": ("app.rb", "api_key: 'VALUE'"),
    "ruby-hash": ("app.rb", ":access_token => 'VALUE',"),
    "php": ("app.php", "$dbPassword = 'VALUE';"),
    "php-array": ("app.php", "'secret_key' => 'VALUE',"),
    "rust": ("main.rs", 'let api_token: &str = "VALUE";'),
    "rust-string": ("main.rs", 'let secret = String::from("VALUE");'),
    "swift": ("App.swift", 'let apiKey = "VALUE"'),
    "lua": ("app.lua", "token = 'VALUE'"),
    "sql": ("init.sql", "SET PASSWORD = 'VALUE';"),
    "environment": (".env", "DATABASE_PASSWORD=VALUE"),
    "exported": ("run.sh", 'export AUTH_TOKEN="VALUE"'),
    "dockerfile": ("Dockerfile", "ENV API_TOKEN=VALUE"),
    "yaml": ("app.yaml", "  api_key: VALUE"),
    "yaml-list": ("app.yaml", "- name: API_TOKEN\n  value: VALUE"),
    "ini": ("app.ini", "secret_key = VALUE"),
    "properties": ("app.properties", "app.auth.token=VALUE"),
    "toml": ("app.toml", 'access_key = "VALUE"'),
    "json": ("app.json", '{"client_secret": "VALUE"}'),
    "json-in-json": ("log.json", '{"body": "{\\"token\\":\\"VALUE\\"}"}'),
    "json-in-json-in-json": ("log.json", '"{\\\\\\"apiKey\\\\\\":\\\\\\"VALUE\\\\\\"}"'),
    "xml": ("app.xml", "<apiKey>VALUE</apiKey>"),
    "xml-attributes": ("app.config", '<add key="ApiSecret" value="VALUE" />'),
    "hcl": ("main.tf", 'auth_token = "VALUE"'),
    "command": ("run.sh", "deploy --api-token VALUE --now"),
    "powershell": ("run.ps1", '$apiKey = "VALUE"'),
    "standard-input": ("", "SECRET_TOKEN=VALUE"),
}
KEYS = ["{{base62:32}}", "{{hex:40}}", "{{base64url:43}}", "{{alnum:24}}"]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("template", KEYS)
def test_a_key_is_found_in_every_syntax(syntax: str, template: str) -> None:
    path, text = SYNTAXES[syntax]
    for seed in range(4):
        key = expand(template, f"{syntax}/{seed}")
        assert found(text.replace("VALUE", key), path) == [key]


@pytest.mark.parametrize("word", ["false", "null", "test", "true", "example", "dummy", "none", "sample", "xxx", "abc"])
@pytest.mark.parametrize("at", [0, 9, 24])
def test_a_key_that_happens_to_hold_a_word_is_found(word: str, at: int) -> None:
    key = expand("{{base62:24}}", word)
    key = key[:at] + word + key[at:]
    assert found(f'token = "{key}"') == [key]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app.py", 'password = "correct-horse-battery-staple"'),
        ("app.py", 'password = "changeme123"'),
        ("app.py", 'token = "your_token_goes_here_1"'),
        ("app.py", 'api_key = "xxxxxxxxxxxxxxxxxxxxxxxx"'),
        ("app.py", 'api_key = "1234567890abcdef1234567890abcdef"'),
        ("app.py", 'api_key = "abcdefghijklmnopqrstuvwxyz012345"'),
        ("app.py", 'secret = "deadbeefdeadbeefdeadbeefdeadbeef"'),
        ("app.py", 'password = os.environ["DATABASE_PASSWORD_2"]'),
        ("app.js", "const token = process.env.API_TOKEN_V2;"),
        ("app.js", "token: generateToken64(32)"),
        ("app.ts", "accessToken: OAuth2AccessTokenV2"),
        ("app.yaml", "password: ${DB_PASSWORD_9f8e7d}"),
        ("app.yaml", "password: {{ vault.db9password }}"),
        ("app.yaml", "token: $API_TOKEN_V2"),
        ("app.yaml", "secretName: app-tls-9f8e7d6c5b4a39281706"),
        ("app.yaml", "secret_key_ref: {{hex:32}}"),
        ("app.yaml", "password_file: /run/secrets/db2.txt"),
        ("app.yaml", "token_url: https://login.internal/oauth2/v1/token"),
        ("app.json", '"public_key": "{{base64:44}}"'),
        ("app.json", '"tokenId": "{{hex:32}}"'),
        ("app.json", '"secret_hash": "{{hex:64}}"'),
        ("app.json", '"token_checksum": "{{hex:64}}"'),
        ("app.json", '"password": "$2b$12${{base62:53}}"'),
        ("app.json", '"client_token": "hmac-sha256:{{hex:64}}"'),
        ("app.json", '"token": "{{uuid}}"'),
        ("app.py", 'csrf_token = "{{base62:32}}"'),
        ("app.py", 'next_page_token = "{{base62:32}}"'),
        ("app.py", 'cache_key = "{{hex:32}}"'),
        ("package-lock.json", '"token": "{{base62:32}}"'),
        ("go.sum", "example.internal/token v1.0.0 h1:{{base64:43}}="),
        ("locales/de.json", '"password": "{{base62:32}}"'),
        ("po/de.po", 'msgid "token"\nmsgstr "token={{base62:32}}"'),
        ("tests/test_app.py", 'password = "S3cret!pass"'),
        ("app.py", 'colour = "{{hex:32}}"'),
        ("app.py", "Authorization: Basic {{base64(user:secret123)}}"),
        ("app.py", "Authorization: Basic {{base64(nobody)}}"),
        ("app.rb", "api_key'] || ENV.fetch('SMTP2GO_API_KEY')"),
    ],
)
def test_what_only_looks_like_a_secret_is_none(path: str, text: str) -> None:
    assert found(text if "{{ " in text else expand(text, path), path) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app.yaml", "password: Tr0ub4dor&3"),
        (".env", "DB_PASS=Xk9!mQ2z"),
        ("app.py", 'db_password = "gW7#pLq2vT"'),
    ],
)
def test_a_password_of_a_person_is_found_where_passwords_stand(path: str, text: str) -> None:
    assert len(found(text, path)) == 1


def test_a_key_in_a_test_is_found_when_it_looks_like_a_real_one() -> None:
    key = expand("{{base62:40}}", "test")
    assert found(f'token = "{key}"', "tests/test_app.py") == [key]


@pytest.mark.parametrize(
    ("path", "ground"),
    [
        ("", Ground.CONFIGURATION),
        ("src/app.py", Ground.CODE),
        ("src/app.min.js.map", Ground.CODE),
        ("deploy/.env.production", Ground.CONFIGURATION),
        ("Dockerfile", Ground.CONFIGURATION),
        ("pkg/server_test.go", Ground.TEST),
        ("docs/guide.md", Ground.TEST),
        ("yarn.lock", Ground.BARREN),
        ("src/contest/latest.py", Ground.CODE),
        ("data/blob", Ground.OTHER),
    ],
)
def test_a_path_tells_what_stands_there(path: str, ground: Ground) -> None:
    assert ground_of(path) is ground


@pytest.mark.parametrize(
    "value",
    [
        "{{base62:12}}",
        "{{base62:32}}",
        "{{hex:40}}",
        "{{base64url:43}}",
        "{{base64({{base62:24}})}}",
        "{{lower:24}}",
        "{{upper:24}}",
        "{{base62:20}}!9#x",
        "correct-horse-battery",
        "{{base62:300}}",
    ],
)
def test_what_is_passed_over_before_it_is_weighed_would_not_have_stood(value: str) -> None:
    """Hyperscan tells where a value begins, so that most need not be confirmed; the fallback weighs every one."""
    quick = engine(fallback=False)
    assert any(look_for(rule).plan.value for rule in quick.ruleset.rules)
    for path, line in SYNTAXES.values():
        for place in (path, f"tests/{path}", "data/blob", "notes.md", ""):
            text = line.replace("VALUE", expand(value, f"{place} {line}"))
            assert found(text, place, quick) == found(text, place)


@pytest.mark.parametrize(
    ("text", "at", "path", "worth"),
    [
        ('key="{{base62:32}}"', 5, "app.py", True),
        ("key={{base62:32}}", 4, "app.py", False),
        ("key={{base62:32}}", 4, "tests/app.py", False),
        ("key={{base62:32}}", 4, "app.env", True),
        ('key="{{base62:12}}"', 5, "tests/app.py", False),
        ('key="{{base62:12}}"', 5, "app.py", True),
        ('key="{{lower:32}}"', 5, "app.py", False),
        ('key="{{upper:32}}"', 5, "app.py", False),
        ('key="{{lower:16}}{{upper:16}}"', 5, "app.py", True),
        ('key="{{base62:32}}"', 5, "yarn.lock", False),
        ("{{base62:32}}", 0, "", True),
        ("{{base62:32}}", 32, "", True),
    ],
)
def test_a_place_tells_whether_a_value_can_begin_there(text: str, at: int, path: str, *, worth: bool) -> None:
    data = expand(text, text).encode()
    assert may_begin(data, at, path) is worth
    assert may_begin(memoryview(data), at, path) is worth


def test_a_bare_value_in_the_code_of_a_test_is_an_expression() -> None:
    value = expand("{{base62:40}}", "bare")
    assert found(f'token = "{value}"', "tests/app.py") == [value]
    assert found(f"token = {value}", "tests/app.py") == []
    assert found(f"token = {value}", "tests/app.env") == [value]


@pytest.mark.parametrize(
    "value", ["a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6", "d4c3b2a1f6e5d4c3b2a1z9y8x7w6v5u4", "1a2b3c4d5e6f7g8h9i0j"]
)
def test_two_sequences_that_take_turns_are_a_placeholder(value: str) -> None:
    assert found(f"API_KEY={value}", ".env") == []
    assert found(f"API_KEY={expand('{{base62:32}}', value)}", ".env") != []


def test_a_header_that_says_your_key_is_a_placeholder() -> None:
    rules = [without_samples(rule) for rule in shipped_rules() if rule.id == "http-bearer-header"]
    headers = open_engine(Ruleset(name="headers", rules=tuple(rules)), cache=None, fallback=True)
    assert found("Authorization: Bearer sk-proj-YOUR_API_KEY_HERE", "run.sh", headers) == []
    key = expand("{{base62:40}}", "header")
    assert found(f"Authorization: Bearer {key}", "run.sh", headers) == [key]
