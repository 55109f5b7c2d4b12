"""`keyturn secrets` against a real server: values come from stdin and files, and go out as they are."""

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

PATH = "production/payments/stripe"


class Shell:
    """Runs commands and gives them stdin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        self._monkeypatch = monkeypatch
        self._capture = capture

    def __call__(self, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["secrets", *argv])
        printed = self._capture.readouterr()
        return code, printed.out, printed.err.decode()

    def document(self, *argv: str, stdin: bytes = b"") -> Any:
        code, out, err = self(*argv, "--json", stdin=stdin)
        assert code == 0, out.decode() + err
        return json.loads(out)


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server()


@pytest.fixture
def shell(server: RunningServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    monkeypatch.setenv("KEYTURN_URL", server.url)
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(server.data_dir / "admin-token"))
    return Shell(monkeypatch, capfdbinary)


@pytest.mark.cluster
def test_the_life_of_a_secret_on_the_command_line(shell: Shell, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.der"
    certificate.write_text("line one\nline two\n")
    key.write_bytes(bytes(range(256)))
    written = shell.document(
        "put",
        PATH,
        "api_key",
        f"certificate=@{certificate}",
        "--binary",
        f"key=@{key}",
        "--cas",
        "0",
        stdin=b"first-of-all-values\n",
    )
    assert written["version"] == 1
    assert shell("get", PATH, "--field", "api_key")[1] == b"first-of-all-values"
    assert shell("get", PATH, "--field", "certificate")[1] == certificate.read_bytes()
    assert shell("get", PATH, "--field", "key")[1] == key.read_bytes()
    copy = tmp_path / "copy.der"
    assert shell("get", PATH, "--field", "key", "--output", str(copy))[0] == 0
    assert (copy.read_bytes(), copy.stat().st_mode & 0o777) == (key.read_bytes(), 0o600)
    code, _, err = shell("get", PATH, "--field", "key", "--output", str(tmp_path / "none" / "copy.der"))
    assert code != 0
    assert "cannot be written" in err
    assert shell("get", PATH, "--field", "none")[0] != 0

    patched = shell.document("patch", PATH, "api_key=-", "--unset", "key", stdin=b"second")
    assert patched["version"] == 2
    assert shell.document("get", PATH)["fields"] == {"api_key": "second", "certificate": "line one\nline two\n"}
    document = json.dumps({"api_key": "third", "limit": 5}).encode()
    assert shell.document("put", PATH, "--from-json", "-", "--pending", stdin=document)["version"] is None
    assert shell.document("promote", PATH)["version"] == 3
    assert shell("get", PATH, "--field", "limit")[1] == b"5"
    assert shell.document("rollback", PATH, "1", "--cas", "3")["version"] == 4
    shell.document("delete", PATH)
    assert shell("get", PATH)[0] != 0
    shell.document("undelete", PATH)
    shell.document("destroy", PATH, "--version", "2", "--version", "3")
    states = [one["state"] for one in shell.document("versions", PATH)["items"]]
    assert states == ["current", "destroyed", "destroyed", "superseded"]

    told = shell.document("describe", PATH, "--owner", "payments team", "--metadata", "tier=1", "--cas-required")
    assert (told["owner"], told["metadata"], told["cas_required"]) == ("payments team", {"tier": "1"}, True)
    assert shell("put", PATH, "x", stdin=b"y")[0] != 0
    assert "payments team" in shell("show", PATH)[1].decode()
    assert [one["path"] for one in shell.document("list", "production/")["items"]] == [PATH]
    assert shell.document("names", "production")["names"] == ["payments/"]
    assert PATH in shell("list")[1].decode()
    assert len(shell.document("readers", PATH)["items"]) > 0
    shell.document("put", "production/copy", "again", stdin=b"first-of-all-values")
    (group,) = shell.document("reuse")["items"]
    assert {place["path"] for place in group["places"]} == {PATH, "production/copy"}
    assert shell("remove", PATH, "--yes")[0] == 0
    assert shell("show", PATH)[0] != 0


@pytest.mark.cluster
def test_no_value_is_taken_from_an_argument_or_shown_in_an_error(shell: Shell, tmp_path: Path) -> None:
    """What stands in the command line is seen by every process of the machine; what is refused is not repeated."""
    value = "".join(("sk_live", "_", "51H8xyzzyQ2"))
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    wrong: tuple[tuple[str, ...], ...] = (
        ("put", PATH, f"key={value}"),
        ("put", PATH, f"={value}"),
        ("put", PATH),
        ("patch", PATH),
        ("put", PATH, "a", "b"),
        ("put", PATH, "a=-", "--from-json", "-"),
        ("put", PATH, f"a=@{binary}"),
        ("put", PATH, f"a=@{tmp_path}/none"),
        ("put", PATH, "--binary", "a=b"),
        ("put", PATH, "--from-json", str(binary)),
        ("put", "production", "a"),
        ("put", "production/../a", "a"),
        ("destroy", PATH),
        ("get", PATH, "--output", "x"),
        ("describe", PATH, "--delete-after-seconds", "soon"),
    )
    for argv in wrong:
        code, out, err = shell(*argv, stdin=value.encode())
        assert code != 0, argv
        assert value not in out.decode() + err


@pytest.mark.cluster
def test_a_value_is_nowhere_in_the_folder_of_the_server(server: RunningServer, shell: Shell) -> None:
    """Database, write-ahead log, server log and audit log hold no value in the clear, nor its base64."""
    value = "plain-text-that-nobody-may-find"
    for number in range(5):
        shell.document("put", PATH, f"field{number}", stdin=value.encode())
    shell.document("patch", PATH, "more", stdin=value.encode())
    shell.document("rollback", PATH, "1")
    shell.document("get", PATH)
    server.stop()
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".db") or "sqlite" in path.name or path.suffix for path in files)
    for path in files:
        assert value.encode() not in path.read_bytes(), path
