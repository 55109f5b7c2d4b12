from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.errors import ConfigError
from keyturn.scanner.cache import Cache, default_folder
from keyturn.scanner.engine import open as opening
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.ruleset import load
from keyturn.scanner.ruleset.model import Rule, Ruleset

RULES = Ruleset(name="test", rules=(Rule(id="a", title="A", regex="key_[a-z]{4}"),))
DATA = b"..key_abcd.."


def _entries(cache: Cache) -> list[Path]:
    return sorted(cache.folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_warm_start_reads_no_rule_file(shared_rules_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = Cache(shared_rules_cache / "keyturn")
    cold = open_engine(cache=shared)

    def refuse() -> None:
        raise AssertionError("the rules were read again")

    monkeypatch.setattr(load, "shipped_ruleset", refuse)
    warm = open_engine(cache=shared)
    assert warm.ruleset == cold.ruleset


@pytest.mark.parametrize("fallback", [False, True])
def test_rules_of_a_user_are_cached_by_their_content(cache: Cache, *, fallback: bool) -> None:
    open_engine(RULES, cache=cache, fallback=fallback)
    (entry,) = _entries(cache)
    before = entry.stat().st_mtime_ns
    assert open_engine(RULES, cache=cache, fallback=fallback).detect(DATA)
    assert entry.stat().st_mtime_ns == before
    open_engine(Ruleset(name="other", rules=RULES.rules), cache=cache, fallback=fallback)
    assert len(_entries(cache)) == 2


@pytest.mark.parametrize("at", [0, 31, 32, 100, -1])
def test_a_damaged_entry_is_made_again(cache: Cache, at: int) -> None:
    open_engine(RULES, cache=cache)
    (entry,) = _entries(cache)
    whole = entry.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    entry.write_bytes(damaged)
    assert open_engine(RULES, cache=cache).detect(DATA)
    assert entry.read_bytes() == whole
    entry.write_bytes(whole[: len(whole) // 2])
    assert open_engine(RULES, cache=cache).detect(DATA)


@pytest.mark.parametrize("body", [b"", b"\x93\x01", b"no message pack at all"])
def test_an_entry_that_is_whole_and_means_nothing_is_made_again(cache: Cache, body: bytes) -> None:
    open_engine(RULES, cache=cache)
    cache.write(_entries(cache)[0].name, body)
    assert open_engine(RULES, cache=cache).detect(DATA)


def test_a_database_of_another_machine_is_made_again(cache: Cache) -> None:
    import msgspec

    open_engine(RULES, cache=cache)
    name = _entries(cache)[0].name
    found = msgspec.msgpack.decode(cache.read(name) or b"", type=opening.Prepared)
    cache.write(name, msgspec.msgpack.encode(msgspec.structs.replace(found, database=b"\x00" * 64)))
    assert open_engine(RULES, cache=cache).detect(DATA)


def test_a_cache_that_cannot_be_written_costs_time_alone(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    assert not cache.write("entry", b"x")
    assert open_engine(RULES, cache=cache).detect(DATA)


def test_entries_are_the_users_alone_and_whole(cache: Cache) -> None:
    assert cache.write("entry", b"data")
    assert cache.read("entry") == b"data"
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in _entries(cache)] == [0o600]
    (cache.folder / "moved").write_bytes((cache.folder / "entry").read_bytes())
    assert cache.read("moved") is None
    assert cache.read("missing") is None
    with pytest.raises(ValueError, match="no name"):
        cache.read("../entry")


def test_the_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user wrote is never loaded as a compiled database."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="another user"):
        Cache(tmp_path)


def test_a_link_or_a_file_is_no_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(ConfigError):
            Cache(tmp_path / name)


def test_old_entries_go_and_new_ones_stay(cache: Cache) -> None:
    for at in range(5):
        cache.write(f"engine-{at}", b"x")
        os.utime(cache.folder / f"engine-{at}", ns=(at, at))
    cache.write("other", b"x")
    cache.prune("engine-", 2)
    assert [path.name for path in _entries(cache)] == ["engine-3", "engine-4", "other"]


def test_the_folder_is_where_the_environment_says() -> None:
    assert default_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/keyturn")
    assert default_folder({"XDG_CACHE_HOME": "relative", "HOME": "/home/a"}) == Path("/home/a/.cache/keyturn")


def test_processes_at_once_end_with_one_whole_entry(cache: Cache) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from keyturn.scanner.cache import Cache; from keyturn.scanner.engine.open import open_engine\n"
        "from keyturn.scanner.ruleset.model import Rule, Ruleset\n"
        "rules = Ruleset(name='test', rules=(Rule(id='a', title='A', regex='key_[a-z]{4}'),))\n"
        "assert open_engine(rules, cache=Cache(Path(sys.argv[1]))).detect(b'key_abcd')\n"
    )
    command = [sys.executable, "-c", program, str(cache.folder)]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [one.wait(120) for one in started] == [0, 0, 0]
    (entry,) = _entries(cache)
    assert cache.read(entry.name) is not None


def test_a_folder_that_is_scanned_lends_the_compiler_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scanning a hostile repository with one's own rules runs nothing of it."""
    (tmp_path / "msgspec.py").write_text("open('ran', 'w')")
    (tmp_path / "hyperscan.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    assert open_engine(RULES, cache=None).detect(DATA)
    assert not (tmp_path / "ran").exists()
