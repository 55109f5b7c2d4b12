"""The offline copy: what opens it, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keyturn.delivery.files import PREFIX, PrivateFolder, private_places, write_private
from keyturn.delivery.offline import BACK_SECONDS, OfflineCopy
from keyturn.delivery.selection import Collected, Reference, Selection
from keyturn.errors import ConfigError, InputError, UnavailableError
from keyturn.kernel.secret import Secret
from tests.client.test_secrets import value

SELECTION = Selection(folders=("production/payments",))
COLLECTED = Collected(
    SELECTION, {"production/payments/a": value("production/payments/a", 1)}, {"production/payments/a": "a"}
)
Copies = Callable[..., OfflineCopy]


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Make copies at 10:00 of a machine that has been up for 1000 seconds, unless told otherwise."""

    def make(at: float = 36_000.0, up: float = 1000.0, **other: Any) -> OfflineCopy:
        given: dict[str, Any] = {"token": Secret("token"), "url": "https://a.example", "selection": SELECTION} | other
        return OfflineCopy(
            tmp_path / "copy", given["token"], given["url"], given["selection"], 3600.0, lambda: at, lambda: up
        )

    return make


def test_what_was_read_comes_back_with_its_age(copies: Copies) -> None:
    copies().save(COLLECTED)
    found, age = copies(at=36_600.0, up=1600.0).load()
    assert (found.values, found.named, age) == (COLLECTED.values, COLLECTED.named, 600.0)


@pytest.mark.parametrize(
    ("at", "up", "reason"),
    [
        (36_000 + 3601, 4601, "expected at most 3600 s"),
        (36_000 - BACK_SECONDS - 1, 1001, "the clock was set back"),
        # Set back to within the hour: the clock since boot tells.
        (36_000 + 10, 1000 + 3601, "expected at most 3600 s"),
    ],
)
def test_an_age_that_cannot_be_trusted_is_refused(copies: Copies, at: float, up: float, reason: str) -> None:
    """Whoever sets the clock must not make a copy young again."""
    copies().save(COLLECTED)
    with pytest.raises(UnavailableError, match=reason):
        copies(at=at, up=up).load()


@pytest.mark.parametrize(
    "other",
    [
        {"token": Secret("another")},
        {"url": "https://b.example"},
        {"selection": Selection(folders=("production/orders",))},
        {"selection": Selection(paths=("production/payments",))},
        {"selection": Selection(folders=("production/payments",), maps=(Reference("A", "production/b", "c"),))},
    ],
)
def test_it_opens_for_its_own_token_address_and_selection_only(copies: Copies, other: dict[str, Any]) -> None:
    copies().save(COLLECTED)
    with pytest.raises(UnavailableError, match="does not open"):
        copies(**other).load()


def test_another_way_to_name_the_same_secrets_opens_it(copies: Copies) -> None:
    copies().save(COLLECTED)
    assert copies(selection=Selection(folders=("production/payments",), prefixed=True)).load()[0].values


def test_a_changed_byte_a_wide_mode_and_no_file_are_refused(copies: Copies, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be read: No such file"):
        copies().load()
    copies().save(COLLECTED)
    file = tmp_path / "copy"
    assert (file.stat().st_mode & 0o777, b"v1" in file.read_bytes()) == (0o600, False)
    file.chmod(0o640)
    with pytest.raises(UnavailableError, match="can be read by others"):
        copies().load()
    file.chmod(0o600)
    sealed = bytearray(file.read_bytes())
    sealed[-1] ^= 1
    file.write_bytes(sealed)
    with pytest.raises(UnavailableError, match="does not open"):
        copies().load()


def test_nothing_prints_a_value(copies: Copies) -> None:
    assert "v1" not in f"{copies()!r} {COLLECTED!r}"


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", ".", "a/\0b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    """Names of fields are chosen by whoever writes the secret, and must not choose a file of this user."""
    folder = PrivateFolder.make([tmp_path])
    with pytest.raises(InputError):
        folder.write({"good": b"1", name: b"2"})
    assert [one.name for one in folder.path.iterdir()] == [".lock"]
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_field_with_a_slash_is_no_file() -> None:
    evil = value("production/payments/a", 1)
    evil.fields["../../x"] = "y"
    with pytest.raises(InputError, match="cannot be the name of a file"):
        Collected(SELECTION, {evil.path: evil}, {evil.path: "a"}).tree()


def test_a_folder_in_use_is_left_alone_and_one_that_is_not_goes(tmp_path: Path) -> None:
    first = PrivateFolder.make([tmp_path])
    first.write({"a/b": b"1"})
    second = PrivateFolder.make([tmp_path])
    assert first.path.exists()
    left = tmp_path / f"{PREFIX}left"
    left.mkdir(mode=0o700)
    (left / ".lock").touch()
    (left / "value").write_text("x")
    third = PrivateFolder.make([tmp_path])
    assert not left.exists()
    for one in (first, second, third):
        one.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_gone_from_a_secret_is_gone_from_the_folder(tmp_path: Path) -> None:
    folder = PrivateFolder.at(tmp_path / "own")
    folder.write({"a/b": b"1", "a/c": b"2"})
    folder.write({"a/b": b"3"})
    assert [(one.name, one.read_bytes()) for one in (folder.path / "a").iterdir()] == [("b", b"3")]
    folder.close()


def test_a_link_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError):
        PrivateFolder.at(tmp_path / "link")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_private(target, b"old")
    with pytest.raises(ConfigError):
        write_private(tmp_path / "missing" / "file", b"new")
    target.chmod(0o644)
    write_private(target, b"new")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"new", 0o600)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_memory_comes_first(tmp_path: Path) -> None:
    places = private_places(str(tmp_path))
    assert places.index(tmp_path) < len(places) - 1
    assert Path("/dev/shm") not in places[1:]  # noqa: S108
