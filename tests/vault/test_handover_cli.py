"""`keyturn guards`, `approvals`, `wrap`, `unwrap`, `secrets share` and grants by capability, against a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer

STRIPE = "production/payments/stripe"

pytestmark = pytest.mark.cluster


@dataclass
class Terminal:
    """Runs commands as somebody."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *argv: str, stdin: str = "", token: str | None = None) -> tuple[int, str, str]:
        """Run a command; return its exit code and what it printed."""
        with self.monkeypatch.context() as patched:
            patched.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            if token is not None:
                patched.delenv("KEYTURN_TOKEN_FILE")
                patched.setenv("KEYTURN_TOKEN", token)
            code = main(list(argv))
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def document(self, *argv: str, stdin: str = "", token: str | None = None) -> Any:
        """Run a command that has to succeed; return its JSON document."""
        code, out, err = self.run(*argv, "--json", stdin=stdin, token=token)
        assert code == 0, out + err
        return json.loads(out)

    def hire(self, name: str, *grant: str, kind: str = "user") -> str:
        """Create a principal with one grant; return a token of it."""
        made = self.document("principals", "create", name, "--kind", kind)
        self.document("grants", "create", "--principal", made["id"], *grant)
        return str(self.document("principals", "tokens", "issue", made["id"], "--name", name)["token"])


@pytest.fixture
def terminal(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    """A terminal of the administrator."""
    server = start_server()
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))
    return Terminal(monkeypatch, capsys)


def test_handing_over_on_the_command_line(terminal: Terminal, tmp_path: Path) -> None:
    """The token comes by stdin or a file, the data by stdin; `--expect` opens nothing that was made elsewhere."""
    made = terminal.document("wrap", "--ttl-seconds", "60", stdin='{"password": "held"}')
    looked = terminal.document("unwrap", "--lookup", stdin=made["token"] + "\n")
    assert (looked["id"], looked["creation_path"], looked["ttl_seconds"]) == (made["id"], "api/v1/wraps", 60)
    code, _, err = terminal.run("unwrap", "--expect", "auth/approle/login", stdin=made["token"])
    assert (code, "unexpected_wrap" in err) == (3, True)
    again = terminal.document("unwrap", "--rewrap", stdin=made["token"])
    token_file = tmp_path / "token"
    token_file.write_text(again["token"])
    code, out, _ = terminal.run("unwrap", "--file", str(token_file), "--expect", "api/v1/wraps")
    assert (code, json.loads(out)) == (0, {"password": "held"})
    code, _, err = terminal.run("unwrap", stdin=again["token"])
    assert (code, "wrap_used" in err, again["token"] in err) == (3, True, False)
    assert terminal.run("unwrap", "--expect", "api/v1/wraps", stdin=again["token"])[0] == 3
    assert terminal.document("audit", "list", "--action", "system.alarm")["items"][0]["outcome"] == "failed"
    for wrong in ("", "[]", "{"):
        assert terminal.run("wrap", stdin=wrong)[0] == 2
    assert terminal.run("unwrap", stdin="\n")[0] == 2
    assert terminal.run("unwrap", "--lookup", "--rewrap", stdin="x")[0] == 2


def test_sharing_a_secret_with_somebody_who_has_no_account(terminal: Terminal) -> None:
    terminal.document("secrets", "put", STRIPE, "--from-json", "-", stdin='{"key": "held"}')
    made = terminal.document("secrets", "share", STRIPE, "--ttl-seconds", "600")
    opened = terminal.document("unwrap", stdin=made["token"])
    assert opened["data"] == {"path": STRIPE, "version": 1, "fields": {"key": "held"}}
    assert opened["creation_path"] == f"api/v1/secret-share/{STRIPE}"


def test_four_eyes_on_the_command_line(terminal: Terminal) -> None:
    """Ana may reveal, Ben may approve; neither is enough alone."""
    terminal.document("secrets", "put", STRIPE, "--from-json", "-", stdin='{"key": "held"}')
    guard = terminal.document("guards", "create", "production/payments/*", "--valid-seconds", "600")
    ana = terminal.hire("ana", "--capability", "reveal", "--path", "production/payments/*")
    ben = terminal.hire("ben", "--action", "approval.decide", "--path", "production/payments/*")
    code, _, err = terminal.run("secrets", "get", STRIPE, token=ana)
    assert (code, "approval_required" in err, "keyturn approvals request" in err) == (4, True, True)
    asked = terminal.document(
        "approvals", "request", STRIPE, "--action", "secret.reveal", "--reason", "an incident", token=ana
    )
    (waiting,) = terminal.document("approvals", "list", "--state", "pending", token=ben)["items"]
    assert waiting == asked
    assert terminal.run("approvals", "decide", asked["id"], "approve", "--reason", "mine", token=ana)[0] == 4
    terminal.document("approvals", "decide", asked["id"], "approve", "--reason", "seen", token=ben)
    assert terminal.document("secrets", "get", STRIPE, token=ana)["fields"] == {"key": "held"}
    assert terminal.run("secrets", "get", STRIPE, token=ben)[0] == 3
    assert terminal.document("approvals", "show", asked["id"], token=ana)["decision_reason"] == "seen"
    terminal.document("approvals", "decide", asked["id"], "deny", "--reason", "over", token=ben)
    assert terminal.run("secrets", "get", STRIPE, token=ana)[0] == 4

    code, _, err = terminal.run("guards", "revoke", guard["id"])
    assert (code, f"--guard {guard['id']}" in err) == (4, True)
    asked = terminal.document("approvals", "request", "--guard", guard["id"], "--reason", "moved")
    cleo = terminal.hire("cleo", "--action", "approval.decide", "--resource", "guard/*")
    terminal.document("approvals", "decide", asked["id"], "approve", "--reason", "yes", token=cleo)
    assert terminal.document("guards", "revoke", guard["id"])["revoked_at"] is not None
    assert [one["id"] for one in terminal.document("guards", "list")["items"]] == [guard["id"]]
    assert terminal.document("guards", "show", guard["id"])["revoked_at"] is not None
    assert terminal.run("approvals", "request", "--reason", "nothing")[0] == 2


def test_a_reference_is_no_way_around_a_guard(terminal: Terminal) -> None:
    """A value that stands for a guarded one is held back like it, also for who read both before."""
    terminal.document("secrets", "put", STRIPE, "--from-json", "-", stdin='{"key": "held"}')
    refers = json.dumps({"key": f"${{secret:{STRIPE}#key}}"})
    terminal.document("secrets", "put", "staging/shop/app", "--from-json", "-", stdin=refers)
    ana = terminal.hire("ana", "--capability", "reveal", "--path", "*")
    assert terminal.document("secrets", "get", "staging/shop/app", token=ana)["fields"] == {"key": "held"}
    terminal.document("guards", "create", "production/payments/*")
    code, out, err = terminal.run("secrets", "get", "staging/shop/app", token=ana)
    assert code != 0
    assert "held" not in (out + err).replace("held back", "")
    terminal.document("approvals", "request", STRIPE, "--action", "secret.reveal", "--reason", "x", token=ana)
    (asked,) = terminal.document("approvals", "list")["items"]
    terminal.document("approvals", "decide", asked["id"], "approve", "--reason", "seen")
    assert terminal.document("secrets", "get", "staging/shop/app", token=ana)["fields"] == {"key": "held"}
    assert terminal.document("approvals", "show", asked["id"])["uses"] == 1


def test_capabilities_are_written_down_as_actions(terminal: Terminal) -> None:
    """There is one kind of grant: what is given by capability and path shows as actions and a resource."""
    made = terminal.document("principals", "create", "app", "--kind", "service")
    grant = terminal.document(
        "grants", "create", "--principal", "app", "--capability", "read", "--capability", "rotate",
        "--path", "production/api.example/*", "--environment", "production",
    )  # fmt: skip
    assert grant["actions"] == ["secret.read", "secret.put", "secret.promote"]
    assert grant["resource"] == "secret/production/api=2Eexample/*"
    answer = terminal.document(
        "grants", "explain", "secret.read", "secret/production/api=2Eexample/key",
        "--principal", made["id"], "--environment", "production",
    )  # fmt: skip
    assert answer["allowed"] is True
    for wrong in (
        ["--path", "a/*"],
        ["--action", "secret.read"],
        ["--action", "x.y", "--path", "a/*", "--resource", "*"],
    ):
        assert terminal.run("grants", "create", "--principal", "app", *wrong)[0] == 2
