"""`keyturn doctor` names what is wrong and what to do, and shows no secret."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keyturn.bootstrap.preparation import prepare
from keyturn.cli.main import main
from keyturn.config import Settings
from keyturn.kernel.clock import wall
from keyturn.storage.counter_file import CounterFile, path_of
from keyturn.testing.ports import free_port
from keyturn.testing.valkey import ValkeyServer

Doctor = Callable[[], tuple[int, dict[str, dict[str, Any]], str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder of an installation whose server is stopped."""
    folder = tmp_path / "data"
    prepare(Settings(data=folder))
    return folder


@pytest.fixture
def doctor(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run it; returns exit code, what is not ok by check, and all that was printed."""
    monkeypatch.setenv("KEYTURN_DATA", str(data))
    monkeypatch.setenv("KEYTURN_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KEYTURN_TOKEN_FILE", str(data / "admin-token"))

    def run() -> tuple[int, dict[str, dict[str, Any]], str]:
        code = main(["doctor", "--json"])
        printed = capsys.readouterr()
        found = json.loads(printed.out)["checks"]
        return code, {one["check"]: one for one in found if one["state"] != "ok"}, printed.out + printed.err

    return run


def test_a_stopped_server_is_the_only_fault_of_a_sound_installation(doctor: Doctor) -> None:
    code, wrong, _ = doctor()
    assert (code, list(wrong)) == (1, ["server"])
    assert "keyturn serve" in wrong["server"]["next"]


def test_a_root_key_that_others_can_read_is_named_with_what_to_do(doctor: Doctor, data: Path) -> None:
    (data / "kek").chmod(0o644)
    code, wrong, _ = doctor()
    assert (code, wrong["root_key"]["next"]) == (1, f"chmod 600 {data / 'kek'}")


def test_files_and_a_folder_that_others_can_read_are_named(doctor: Doctor, data: Path) -> None:
    (data / "admin-token").chmod(0o640)
    assert str(data / "admin-token") in doctor()[1]["data_folder"]["detail"]
    (data / "admin-token").chmod(0o600)
    data.chmod(0o755)
    assert doctor()[1]["data_folder"]["state"] == "warn"


def test_a_missing_root_key_is_named_by_its_id(doctor: Doctor, data: Path) -> None:
    kek_id = (data / "kek").read_text().split()[1]
    (data / "kek").unlink()
    code, wrong, _ = doctor()
    assert code == 1
    assert kek_id in wrong["root_key"]["detail"]
    assert not (data / "kek").exists()


def test_a_pending_migration_is_named(doctor: Doctor, data: Path) -> None:
    with sqlite3.connect(data / "keyturn.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    connection.close()
    code, wrong, _ = doctor()
    assert (code, wrong["schema"]["next"]) == (1, "run `keyturn migrate`")


def test_a_damaged_file_is_named(doctor: Doctor, data: Path) -> None:
    with (data / "keyturn.db").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 65536)
    code, wrong, _ = doctor()
    assert code == 1
    assert {"integrity", "database"} & set(wrong)


def test_a_database_held_by_another_process_is_named(
    doctor: Doctor, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyturn.storage.sqlite.SqliteDatabase.__init__.__kwdefaults__", {"busy_seconds": 0.1})
    holder = sqlite3.connect(data / "keyturn.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert doctor()[1]["writes"]["state"] == "fault"
    finally:
        holder.close()


def test_a_database_out_of_reach_is_named_without_its_password(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    password = "pass" + "word-of-the-database"
    monkeypatch.setenv("KEYTURN_DATABASE_URL", f"postgresql://keyturn:{password}@127.0.0.1:{free_port()}/keyturn")
    code, wrong, printed = doctor()
    assert (code, wrong["database"]["state"], password in printed) == (1, "fault", False)


def test_a_full_disk_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, used=10**9, free=0))
    code, wrong, _ = doctor()
    assert (code, wrong["disk"]["state"]) == (1, "fault")


def test_a_wrong_setting_is_named_and_no_secret_is_shown(
    doctor: Doctor, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, root_key = (data / "admin-token").read_text().strip(), (data / "kek").read_text().split()[2]
    _, _, printed = doctor()
    assert token not in printed
    assert root_key not in printed
    monkeypatch.setenv("KEYTURN_HOST", "0.0.0.0")  # noqa: S104 -- refused
    assert "TLS" in doctor()[1]["serving"]["detail"]
    monkeypatch.setenv("KEYTURN_PROT", "8700")
    code, wrong, _ = doctor()
    assert (code, list(wrong)) == (1, ["settings"])


def test_a_token_is_not_sent_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor that leaks the token to the network would be worse than the fault it names."""
    from keyturn.cli.doctor import _token
    from keyturn.kernel.secret import Secret

    def refuse(*_: object) -> None:
        raise AssertionError("it was sent")

    monkeypatch.setattr("keyturn.cli.session.Session.get", refuse)
    assert _token("http://keys.example.com", Secret("any")).state == "fault"


def test_a_valkey_that_answers_is_no_fault(
    doctor: Doctor, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_VALKEY_URL", valkey_server.url)
    assert "limit_store" not in doctor()[1]


def test_a_valkey_that_may_drop_counters_is_named(
    doctor: Doctor, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters that are evicted are limits that begin anew."""
    monkeypatch.setenv("KEYTURN_VALKEY_URL", valkey_server.url)
    valkey_server.command("CONFIG", "SET", "maxmemory", "64mb", "maxmemory-policy", "allkeys-lru")
    try:
        wrong = doctor()[1]
    finally:
        valkey_server.command("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
    assert wrong["limit_store"]["state"] == "warn"
    assert "allkeys-lru" in wrong["limit_store"]["detail"]


def test_a_valkey_that_does_not_answer_is_named_without_its_password(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = "hunter" + "2hunter2"
    monkeypatch.setenv("KEYTURN_VALKEY_URL", f"redis://:{hidden}@127.0.0.1:{free_port()}")
    code, wrong, printed = doctor()
    assert (code, wrong["limit_store"]["state"]) == (1, "fault")
    assert hidden not in printed


def test_workers_that_count_limits_apart_are_named(doctor: Doctor, data: Path) -> None:
    with sqlite3.connect(data / "keyturn.db") as connection:
        columns = "id, kind, label, log_id, applied, registered_at, confirmed_at"
        for number in range(2):
            values = (f"nod_{number}", "server", f"host/{number}", "log", 0, 9e9, 9e9)
            connection.execute(f"INSERT INTO node ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    assert doctor()[1]["limits"]["state"] == "warn"


def test_usage_that_a_killed_server_has_lost_is_named(doctor: Doctor, data: Path) -> None:
    file = CounterFile.create(path_of(data, "usage", "nod_killed"), slots=1)
    file.set(file.slot("usage") or 0, 5, 3)
    file.close()
    _, wrong, _ = doctor()
    assert wrong["usage"]["state"] == "warn"
    assert "1 servers were killed" in wrong["usage"]["detail"]
    with sqlite3.connect(data / "keyturn.db") as connection:
        row = ("nod_killed", wall(), 5, 3, 2)
        connection.execute("INSERT INTO usage_loss (node, at, counted, written, lost) VALUES (?, ?, ?, ?, ?)", row)
    file.path.unlink()
    _, wrong, _ = doctor()
    assert "have lost 2 counted verifications" in wrong["usage"]["detail"]
    assert "keyturn usage losses" in wrong["usage"]["next"]
