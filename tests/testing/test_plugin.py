from pathlib import Path
from urllib.parse import urlsplit


def test_a_test_of_storage_runs_on_an_empty_database_of_each_kind(database_url: str, tmp_path: Path) -> None:
    parts = urlsplit(database_url)
    if parts.scheme == "sqlite":
        assert parts.path.removeprefix("/") == str(tmp_path / "keyturn.db")
        assert not (tmp_path / "keyturn.db").exists()
    else:
        assert parts.scheme == "postgresql+asyncpg"
        assert parts.hostname == "127.0.0.1"
