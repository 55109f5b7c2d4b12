"""The story of a key through the command line, against a real server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    start_server: Callable[..., RunningServer],
    server_database_url: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command against a new server: `run("keys", "list", stdin="")` -> exit code and output."""
    server = start_server(server_database_url)
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))

    def run(*argv: str, stdin: str = "") -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(list(argv))
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def document(run: Run, *argv: str, stdin: str = "") -> Any:
    """Run a command with `--json`, expect success and return its document."""
    code, printed = run(*argv, "--json", stdin=stdin)
    assert code == 0, printed
    return json.loads(printed)


@pytest.mark.cluster
def test_the_life_of_a_key_on_the_command_line(run: Run, tmp_path: Path) -> None:
    assert run("keyspaces", "create", "orders", "--prefix", "acme", "--environment", "production")[0] == 0
    issued = document(run, "keys", "issue", "orders", "--owner", "o", "--purpose", "p", "--scope", "orders:*")
    key_id, first = issued["id"], issued["key"]
    assert document(run, "keys", "verify", "--scopes", "orders:read", stdin=first)["valid"] is True
    rotated = document(run, "keys", "rotate", key_id, "--overlap-seconds", "3600")
    env_file = tmp_path / "env"
    env_file.write_text(f"OTHER=1\nexport SHOP_KEY='{rotated['key']}'\n")
    verdict = document(run, "keys", "verify", "--env-file", str(env_file), "--variable", "SHOP_KEY")
    assert verdict["version_id"] == rotated["version_id"]
    assert document(run, "keys", "verify", stdin=first)["version_id"] == issued["version_id"]
    code, printed = run("keys", "show", key_id)
    assert code == 0
    assert issued["version_id"] in printed
    assert first not in printed
    assert document(run, "keys", "retire", key_id, "--force")["effective"] is True
    code, printed = run("keys", "verify", stdin=first)
    assert (code, "REVOKED" in printed) == (1, True)
    assert document(run, "keys", "disable", key_id)["effective"] is True
    assert run("keys", "verify", stdin=rotated["key"])[0] == 1
    document(run, "keys", "enable", key_id)
    assert run("keys", "verify", stdin=rotated["key"])[0] == 0
    revoked = document(run, "keys", "revoke", key_id, "--reason", "key_compromise")
    assert (revoked["state"], revoked["effective"]) == ("revoked", True)
    assert run("keys", "verify", stdin=rotated["key"])[0] == 1
    code, printed = run("keys", "enable", key_id)
    assert code == 3
    assert printed.startswith("error: key ")
    assert [one["id"] for one in document(run, "keys", "list", "--state", "revoked")["items"]] == [key_id]


@pytest.mark.cluster
def test_keyspaces_updates_and_imports_on_the_command_line(run: Run) -> None:
    document(run, "keyspaces", "create", "shop", "--prefix", "acme", "--environment", "qa", "--cidr", "10.0.0.0/8")
    changed = document(run, "keyspaces", "update", "shop", "--clear-restrictions", "--stale-after-seconds", "5")
    assert (changed["restrictions"], changed["stale_after_seconds"]) == (None, 5)
    assert [one["name"] for one in document(run, "keyspaces", "list")["items"]] == ["shop"]
    foreign = "-".join(("sk", "foreign", "0123456789"))
    lines = json.dumps({"format": "plaintext", "value": foreign, "owner": "o", "purpose": "p"}) + "\n\n"
    (imported,) = document(run, "keys", "import", "shop", "-", stdin=lines)["items"]
    assert document(run, "keys", "verify", stdin=foreign)["key_id"] == imported["id"]
    updated = document(
        run, "keys", "update", imported["id"], "--scope", "a:read", "--name", "n", "--endpoint", "GET /a/**"
    )
    assert (updated["scopes"], updated["name"]) == (["a:read"], "n")
    assert updated["restrictions"]["endpoints"] == [{"methods": ["GET"], "path": "/a/**"}]
    assert document(run, "keys", "update", imported["id"], "--name", "", "--clear-restrictions")["name"] is None
    assert len(document(run, "keyspaces", "rotate-pepper", "shop")["peppers"]) == 2
    assert run("keyspaces", "disable", "shop", "--revision", "1")[0] == 3
    assert document(run, "keyspaces", "disable", "shop")["state"] == "disabled"
    assert document(run, "keyspaces", "enable", "shop")["state"] == "active"
    assert document(run, "keyspaces", "show", "shop")["accepts_foreign"] is True


@pytest.mark.cluster
def test_a_secret_is_repeated_by_no_failure(run: Run, tmp_path: Path) -> None:
    """A mistyped import or verification must not leave the key in a terminal's scrollback."""
    run("keyspaces", "create", "shop", "--prefix", "acme", "--environment", "production")
    foreign = "-".join(("sk", "foreign", "0123456789"))
    for lines in (f'{{"value": "{foreign}"', json.dumps({"value": foreign}), json.dumps(foreign)):
        code, printed = run("keys", "import", "shop", "-", stdin=lines)
        assert code == 2
        assert foreign not in printed
    env_file = tmp_path / "env"
    env_file.write_text(f"KEY={foreign}\n")
    code, printed = run("keys", "verify", "--env-file", str(env_file))
    assert code == 2
    assert foreign not in printed
    assert run("keys", "verify", stdin="")[0] == 2


@pytest.mark.cluster
def test_plans_and_owners_on_the_command_line(run: Run) -> None:
    made = document(
        run, "plans", "create", "basic", "--scope", "orders:read", "--limit", "minute=100/1m,burst=20,per=owner"
    )
    assert made["limits"] == [{"name": "minute", "limit": 100, "window_seconds": 60, "burst": 20, "per": "owner"}]
    document(run, "plans", "create", "gold", "--quota", "monthly=10000/month", "--quota", "credits=5,per=owner,shadow")
    document(run, "keyspaces", "create", "shop", "--prefix", "acme", "--environment", "qa", "--default-plan", "basic")
    issued = document(
        run, "keys", "issue", "shop", "--owner", "team/shop", "--purpose", "p", "--plan", "basic", "--limit", "s=5/1s"
    )
    assert (issued["plan"], issued["limits"]) == ("basic", [{"name": "s", "limit": 5, "window_seconds": 1}])
    assert document(run, "keys", "verify", "--scopes", "orders:read", stdin=issued["key"])["valid"] is True
    moved = document(run, "keys", "update", issued["id"], "--plan", "gold", "--clear-limits")
    assert (moved["plan"], moved["limits"], moved["effective"]) == ("gold", [], True)
    assert run("keys", "verify", "--scopes", "orders:read", stdin=issued["key"])[0] == 1
    assert [one["id"] for one in document(run, "keys", "list", "--plan", "gold")["items"]] == [issued["id"]]
    for name in ("team/shop", "Ada Lovelace", "..", "100%"):
        owner = document(run, "owners", "update", name, "--plan", "basic", "--quota", "daily=5/day")
        assert (owner["name"], owner["plan"], owner["quotas"][0]["period"]) == (name, "basic", "day")
        assert document(run, "owners", "show", name)["revision"] == 1
    assert document(run, "owners", "update", "team/shop", "--plan", "", "--clear-quotas")["plan"] is None
    code, printed = run("owners", "list", "--plan", "basic")
    assert (code, "daily=5/day" in printed, "team/shop" in printed) == (0, True, False)
    code, printed = run("plans", "retire", "gold")
    assert (code, "[plan_in_use]" in printed) == (3, True)
    assert document(run, "plans", "retire", "gold", "--move-to", "basic")["state"] == "retired"
    assert document(run, "keys", "show", issued["id"])["plan"] == "basic"
    code, printed = run("plans", "list")
    assert code == 0
    assert "minute=100/1m,burst=20,per=owner" in printed
    assert run("keyspaces", "update", "shop", "--default-plan", "", "--limit", "burst=10/10s,shadow")[0] == 0
    code, printed = run("keyspaces", "show", "shop")
    assert "burst=10/10s,shadow" in printed
    for wrong in ("minute", "minute=100", "minute=100/60s,burst=many", "minute=100/60s,often"):
        code, printed = run("plans", "update", "basic", "--limit", wrong)
        assert (code, wrong in printed) == (2, True)
    code, printed = run("plans", "update", "basic", "--limit", "a=1/1s", "--limit", "a=2/1s")
    assert (code, "limits[1].name" in printed) == (2, True)
