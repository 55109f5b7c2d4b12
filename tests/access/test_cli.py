"""The commands of access against a real server, as an operator types them."""

import gc
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer

Run = Callable[..., Any]


@pytest.fixture
def run(
    start_server: Callable[[], RunningServer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Run `keyturn … --json` as the administrator, or with the token given; returns the document, or the exit code."""
    server = start_server()
    monkeypatch.setenv("KEYTURN_URL", server.url)

    def command(*arguments: str, token: str | None = None, fails: bool = False) -> Any:
        file = server.data_dir / "admin-token"
        if token is not None:
            file = tmp_path / "token"
            file.write_text(token)
            file.chmod(0o600)
        monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(file))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            code = main([*arguments, "--json"])
            gc.collect()
        # Every command closes its connections, whether it succeeds or fails.
        assert not [one for one in caught if issubclass(one.category, ResourceWarning)]
        out = capsys.readouterr()
        assert (code != 0) is fails, out.err
        return code if fails else json.loads(out.out)

    return command


def test_from_a_principal_to_a_token_that_may_do_just_one_thing(run: Run) -> None:
    bot = run("principals", "create", "bot", "--kind", "agent", "--metadata", "team=pay")
    run("roles", "create", "ops", "--description", "keeps it running")
    assert run("roles", "assign", "ops", "bot")["members"][0]["principal"] == bot["id"]
    grant = run("grants", "create", "--role", "ops", "--action", "principal.*", "--resource", "*")
    assert [one["id"] for one in run("grants", "list", "--principal", "bot")["items"]] == [grant["id"]]
    issued = run("principals", "tokens", "issue", "bot", "--name", "ci", "--scope", "principal.read")
    token = issued["token"]

    assert run("whoami", token=token)["principal"] == bot["id"]
    assert run("principals", "show", "bot", token=token)["name"] == "bot"
    run("principals", "disable", "bot", token=token, fails=True)
    own = run("grants", "explain", "principal.disable", f"principal/{bot['id']}", token=token)
    assert (own["allowed"], own["reason"]) == (False, "the token's scopes do not include principal.disable")
    assert run("grants", "explain", "principal.disable", f"principal/{bot['id']}", "--principal", "bot")["allowed"]

    assert run("grants", "revoke", grant["id"])["effective"] is True
    run("principals", "show", "bot", token=token, fails=True)
    assert run("roles", "unassign", "ops", "bot")["members"] == []
    assert token not in json.dumps(run("principals", "tokens", "list", "bot"))
    assert run("principals", "tokens", "revoke", "bot", issued["id"])["state"] == "revoked"
    run("whoami", token=token, fails=True)
    assert run("principals", "disable", "bot")["state"] == "disabled"
    assert run("principals", "enable", "bot")["state"] == "active"
    changed = run("principals", "update", "bot", "--name", "robot", "--revision", "3")
    assert (changed["name"], changed["revision"]) == ("robot", 4)
    assert {one["name"] for one in run("principals", "list", "--kind", "agent")["items"]} == {"robot"}


def test_a_workspace_is_its_own_and_can_be_switched_off(run: Run) -> None:
    made = run("workspaces", "create", "acme", "--keys-max", "5")
    assert run("workspaces", "show", "acme", token=made["token"])["id"] == made["id"]
    assert [one["name"] for one in run("workspaces", "list", token=made["token"])["items"]] == ["acme"]
    run("workspaces", "show", "default", token=made["token"], fails=True)
    lifted = run("workspaces", "update", "acme", "--no-keys-max")
    assert lifted["keys_max"] is None
    assert run("workspaces", "update", "acme", "--state", "disabled")["effective"] is True
    run("whoami", token=made["token"], fails=True)


def test_what_is_not_there_is_one_exit_code(run: Run) -> None:
    codes = {
        run("principals", "show", "nobody", fails=True),
        run("roles", "show", "none", fails=True),
        run("grants", "show", "grt_x", fails=True),
        run("workspaces", "show", "none", fails=True),
    }
    assert codes == {3}
