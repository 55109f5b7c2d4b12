"""`keyturn audit` against a real server, as an operator types it, and offline."""

import gc
import json
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.main import main
from keyturn.testing.server import RunningServer


@pytest.fixture
def server(
    start_server: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> RunningServer:
    """A server with a checkpoint file outside its data folder."""
    started = start_server(env={"KEYTURN_CHECKPOINT_SINK": str(tmp_path / "sink.jsonl")})
    monkeypatch.setenv("KEYTURN_URL", started.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(started.data_dir / "admin-token"))
    return started


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; returns exit code, output and errors."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        with warnings.catch_warnings():
            # A command leaves its connection to the end of its process, which here goes on.
            warnings.simplefilter("ignore", ResourceWarning)
            code = main([*map(str, arguments)])
            gc.collect()
        out = capsys.readouterr()
        return code, out.out, out.err

    return command


@pytest.mark.usefixtures("server")
def test_log_is_verified_online_and_offline_and_tampering_is_an_exit_code(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    def found(*arguments: str | Path) -> tuple[int, Any]:
        code, out, err = run(*arguments, "--json")
        return code, json.loads(out) if out else err

    key, kept, exported = tmp_path / "key.txt", tmp_path / "kept.txt", tmp_path / "log.jsonl"
    run("principals", "create", "bot", "--kind", "agent")
    key.write_text(run("audit", "public-key")[1])
    code, first = found("audit", "verify", "--public-key", key, "--save-checkpoint", kept)
    assert (code, first["ok"], first["key_pinned"]) == (0, True, True)
    run("principals", "create", "bot2", "--kind", "agent")
    assert [item["action"] for item in found("audit", "list", "--action", "principal.*")[1]["items"]] == [
        "principal.create",
        "principal.create",
    ]
    code, second = found("audit", "verify", "--public-key", key, "--since", kept)
    assert (code, second["first"]) == (0, first["size"])

    assert run("audit", "export", "--output", exported)[0] == 0
    assert found("audit", "verify", "--export", exported, "--public-key", key, "--since", kept)[0] == 0
    assert exported.stat().st_mode & 0o077 == 0
    text = exported.read_text()
    exported.write_text(text.replace("bot", "bad", 1))
    code, report = found("audit", "verify", "--export", exported, "--public-key", key)
    assert (code, [one["kind"] for one in report["findings"]]) == (1, ["altered"])
    assert "TAMPERED" in run("audit", "verify", "--export", exported, "--public-key", key)[1]

    assert run("audit", "export", "--output", exported)[0] != 0  # it exists
    assert run("audit", "verify", "--export", exported)[0] == 2  # no key
    assert run("audit", "verify", "--export", key, "--public-key", key)[0] == 2  # no export
    assert run("audit", "verify", "--export", tmp_path / "none", "--public-key", key)[0] == 2
    assert run("audit", "verify", "--since", key, "--public-key", key)[0] == 2  # no checkpoint


def test_tampering_with_the_database_of_a_server_is_found_and_a_sink_tells_a_rollback(
    server: RunningServer, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for number in range(3):
        run("principals", "create", f"bot{number}", "--kind", "agent")
    server.stop()
    backup = (server.data_dir / "keyturn.db").read_bytes()
    server.restart()
    run("principals", "create", "bot3", "--kind", "agent")
    server.stop()
    sink = tmp_path / "sink.jsonl"
    assert sink.read_text().count("\n") > 1

    (server.data_dir / "keyturn.db").write_bytes(backup)
    server.restart()
    # Two leaves of the new history are not enough to hide that the old one was longer.
    code, out, _ = run("audit", "verify", "--since", sink, "--json")
    assert (code, json.loads(out)["findings"][0]["kind"]) == (1, "rolled_back")
    server.stop()

    with sqlite3.connect(server.data_dir / "keyturn.db") as connection:
        connection.execute(
            "UPDATE audit_leaf SET body = replace(CAST(body AS TEXT), 'bot1', 'bad1') WHERE action = 'principal.create'"
        )
        # The driver stores text; a leaf is bytes.
        connection.execute("UPDATE audit_leaf SET body = CAST(body AS BLOB)")
    connection.close()
    server.restart()
    code, out, _ = run("audit", "verify", "--json")
    assert (code, [one["kind"] for one in json.loads(out)["findings"]]) == (1, ["altered"])


def test_verification_needs_the_base_install_only() -> None:
    """Who verifies an export must not need the server."""
    program = (
        "import sys\n"
        "import keyturn.audit.verification, keyturn.cli.audit\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'sqlalchemy', 'litestar', 'alembic', 'asyncpg', 'granian', 'structlog'}, loaded\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0
