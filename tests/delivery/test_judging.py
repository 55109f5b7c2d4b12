"""What is said of values on their way in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyturn.delivery.judging import file_remarks, judge, shared
from keyturn.kernel.secret import random_base62


def kinds(name: str, value: str, environment: str = "staging") -> set[str]:
    return {one.kind for one in judge({name: value}, environment)}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "changeme",
        "change-me",
        "CHANGE_ME",
        "your-api-key-here",
        "<password>",
        "xxxxxxxxxxxxxxxx",
        "password",
        "P@ssw0rd123",
        "admin2024!",
        "qwerty",
        "12345678",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "abababababababababab",
        "Tr0ub4dor",
        "hunter2",
        "postgres",
        "{{ secret }}",
        "TODO",
    ],
)
def test_weak_values_are_named(value: str) -> None:
    assert kinds("DB_PASSWORD", value) == {"weak"}


@pytest.mark.parametrize("name", ["DB_PASSWORD", "API_KEY", "TOKEN", "JWT_SECRET", "SOMETHING"])
def test_random_values_are_not(name: str) -> None:
    assert kinds(name, random_base62(32)) == set()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80"),
        ("NODE_ENV", "production"),
        ("DB_HOST", "localhost"),
        ("DEBUG", "true"),
        ("KEY_ID", "1"),
        ("TOKEN_URL", "https://idp.example.com/token"),
        ("PUBLIC_KEY", "abc"),
        ("API_KEY_FILE", "/run/key"),
    ],
)
def test_what_is_no_secret_is_not_judged(name: str, value: str) -> None:
    assert kinds(name, value) == set()


def test_a_test_key_in_production_is_named() -> None:
    value = "_".join(("sk", "test", random_base62(24)))
    assert kinds("STRIPE_KEY", value, "production") == {"test_key"}
    assert kinds("STRIPE_KEY", value, "staging") == set()


def test_the_same_value_under_several_names_or_in_several_files_is_named() -> None:
    value = random_base62(24)
    found = judge({"A_KEY": value, "B_KEY": value, "C_PORT": "80", "D_PORT": "80"}, "staging")
    assert [(one.name, one.kind) for one in found] == [("A_KEY", "shared"), ("B_KEY", "shared")]
    across = shared({"": {"KEY": value}, ".env.staging": {"OTHER": value}})
    assert across[0].text == "the same value as .env.staging:OTHER"
    assert value not in repr([found, across])


def test_a_file_that_others_can_read_or_that_git_tracks_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=b")
    file.chmod(0o600)
    assert file_remarks(file) == []
    file.chmod(0o644)
    assert [one.kind for one in file_remarks(file)] == ["open"]
    for command in (["init", "-q"], ["add", ".env"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)  # noqa: S607
    assert [one.kind for one in file_remarks(file)] == ["open", "tracked"]
