from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.errors import InputError
from keyturn.scanner.watching import Schedule, Watch, is_elsewhere, read_watches, scan_arguments

FILE = """
[[watch]]
name = "backend"
repository = "https://git.example.com/backend.git"
every_seconds = 600

[[watch]]
name = "builds"
folder = "/srv/builds"
arguments = ["--strict"]
"""


def test_a_watch_file_is_read() -> None:
    backend, builds = read_watches(FILE, "watch.toml")
    assert (backend.name, backend.every_seconds, builds.folder) == ("backend", 600, "/srv/builds")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1 to"),
        ("[[watch]", "not TOML"),
        ('[[watch]]\nname = "a"\n', "repository or a folder"),
        ('[[watch]]\nname = "a"\nfolder = "x"\nrepository = "y"\n', "repository or a folder"),
        ('[[watch]]\nname = "A b"\nfolder = "x"\n', "no name"),
        ('[[watch]]\nname = "a"\nfolder = "x"\nevery_seconds = 5\n', "every 5 seconds"),
        ('[[watch]]\nname = "a"\nfolder = "x"\nnothing = 1\n', "nothing"),
        ('[[watch]]\nname = "a"\nfolder = "x"\n[[watch]]\nname = "a"\nfolder = "y"\n', "two watches"),
        ('[[watch]]\nname = "a"\nfolder = "-rf"\n', "dash"),
        ('[[watch]]\nname = "a"\nrepository = "ext::sh -c true"\n', "remote helper"),
    ],
)
def test_a_watch_file_that_is_wrong_is_told_what_is(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_watches(text, "watch.toml")


def test_a_schedule_outlives_a_restart(tmp_path: Path) -> None:
    watches = read_watches(FILE, "watch.toml")
    path = tmp_path / "due.json"
    schedule = Schedule(path)
    assert schedule.due(watches, 1000.0) == list(watches)
    schedule.done(watches[0], 1000.0)
    again = Schedule(path)
    assert again.due(watches, 1000.0) == [watches[1]]
    assert again.due(watches, 1600.0) == [watches[1], watches[0]]
    again.done(watches[1], 1000.0)
    assert again.wait_seconds(watches, 1100.0) == 500.0


def test_a_clock_that_was_set_back_puts_no_watch_off_for_ever(tmp_path: Path) -> None:
    watches = read_watches(FILE, "watch.toml")[:1]
    schedule = Schedule(tmp_path / "due.json")
    schedule.done(watches[0], 1_000_000.0)
    assert schedule.wait_seconds(watches, 1000.0) <= watches[0].every_seconds


@pytest.mark.parametrize("text", ["", "{", "[]", '{"backend": "soon"}'])
def test_a_schedule_that_is_garbled_makes_everything_due(tmp_path: Path, text: str) -> None:
    path = tmp_path / "due.json"
    path.write_text(text)
    watches = read_watches(FILE, "watch.toml")
    assert Schedule(path).due(watches, 1.0) == list(watches)


@pytest.mark.parametrize(
    ("repository", "elsewhere"),
    [
        ("https://git.example.com/a.git", True),
        ("ssh://git@git.example.com/a.git", True),
        ("git@git.example.com:a.git", True),
        ("/srv/git/a.git", False),
        ("a/b:c", False),
    ],
)
def test_a_repository_elsewhere_is_mirrored_and_one_here_is_not(repository: str, elsewhere: bool) -> None:  # noqa: FBT001
    assert is_elsewhere(Watch(name="a", repository=repository)) is elsewhere


def test_a_place_is_never_taken_for_an_option() -> None:
    backend, builds = read_watches(FILE, "watch.toml")
    assert scan_arguments(backend, "/m", report=True)[-2:] == ["--", "/m"]
    assert "--strict" in scan_arguments(builds, "/srv/builds", report=False)
    assert "--report" not in scan_arguments(builds, "/srv/builds", report=False)


@pytest.mark.parametrize("address", ["https://x:y@example.com/a.git", "https://x:y%40z@example.com/", "SSH://a:b@h/r"])
def test_address_with_a_password_is_refused_and_not_repeated(address: str) -> None:
    """It would be in the arguments of git, for everybody on the machine to read, and in the settings of the mirror."""
    with pytest.raises(InputError, match="holds a password") as failed:
        read_watches(f'[[watch]]\nname = "a"\nrepository = "{address}"\n', "f")
    assert address not in str(failed.value)
    assert read_watches('[[watch]]\nname = "a"\nrepository = "ssh://git@example.com:22/a.git"\n', "f")
