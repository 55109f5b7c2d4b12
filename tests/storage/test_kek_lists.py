"""Root keys are a list: in a file, in variables, and derived from passphrases."""

import os
import stat
import threading
from pathlib import Path

import pytest

from keyturn.config import Settings
from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.secret import Secret
from keyturn.storage import kek_passphrase
from keyturn.storage.kek import RootKeys, load_provider
from keyturn.storage.kek_held import HeldKeks, encode, generate

PHRASE = Secret("correct horse battery " + "staple")
OTHER = Secret("six more words drawn at " + "random")


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretch passphrases quickly."""
    monkeypatch.setattr(kek_passphrase, "_MEMORY_KIB", 64)
    monkeypatch.setattr(kek_passphrase, "_PASSES", 1)
    monkeypatch.setattr(kek_passphrase, "_LANES", 1)


def of_file(folder: Path, *, create: bool = False) -> RootKeys:
    return load_provider(Settings(data=folder), create=create)


def of_phrase(folder: Path, phrase: Secret, previous: Secret | None = None, *, create: bool = False) -> RootKeys:
    settings = Settings(data=folder, kek_provider="passphrase", kek_passphrase=phrase, kek_passphrase_previous=previous)
    return load_provider(settings, create=create)


# --- file ------------------------------------------------------------------------------------------------------------


def test_newest_line_seals_and_all_open(tmp_path: Path) -> None:
    before = of_file(tmp_path, create=True)
    old = before.wrap(bytes(32))
    added = of_file(tmp_path).add()
    again = of_file(tmp_path)

    assert again.ids == (added, before.id)
    assert again.wrap(bytes(32)).kek_id == added
    assert again.unwrap(old.kek_id, old.wrapped) == bytes(32)
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["kek"]


def test_server_that_runs_follows_the_file(tmp_path: Path) -> None:
    """A rotation needs no restart: unknown root keys are looked for, and the newest line seals."""
    running = of_file(tmp_path, create=True)
    old = running.id
    added = of_file(tmp_path).add()
    made = of_file(tmp_path).wrap(bytes(32))

    assert running.unwrap(made.kek_id, made.wrapped) == bytes(32)
    assert running.wrap(bytes(32)).kek_id == added
    assert of_file(tmp_path).take(old, None)
    running.refresh()
    assert running.ids == (added,)


def test_file_that_is_lost_or_broken_leaves_what_was_known_and_wraps_nothing(tmp_path: Path) -> None:
    """Nothing new may be wrapped under a root key that is gone with the process."""
    running = of_file(tmp_path, create=True)
    made = running.wrap(bytes(32))
    (tmp_path / "kek").write_text("not a root key")

    assert running.unwrap(made.kek_id, made.wrapped) == bytes(32)
    with pytest.raises(KekError, match="does not hold"):
        running.wrap(bytes(32))
    with pytest.raises(KekError, match="kek_absent"):
        running.unwrap("kek_absent", made.wrapped)


def test_root_key_that_is_taken_is_kept_first(tmp_path: Path) -> None:
    provider = of_file(tmp_path, create=True)
    before, old = (tmp_path / "kek").read_text(), provider.id
    provider.add()
    keep = tmp_path / "kept"

    assert provider.take(old, keep)
    assert keep.read_text() == before
    assert stat.S_IMODE(keep.stat().st_mode) == 0o600
    assert old not in (tmp_path / "kek").read_text()


def test_root_key_is_added_to_the_file_that_a_link_points_to(tmp_path: Path) -> None:
    """A link that became a file would take the new root key away from where the operator keeps and backs it up."""
    kept, data = tmp_path / "kept", tmp_path / "data"
    kept.mkdir()
    data.mkdir()
    of_file(kept, create=True)
    (data / "kek").symlink_to(kept / "kek")
    linked = of_file(data)

    made = linked.add()

    assert (data / "kek").is_symlink()
    assert of_file(kept).ids == of_file(data).ids == linked.ids
    assert of_file(kept).id == made
    assert linked.take(linked.ids[1], None)
    assert (data / "kek").is_symlink()
    assert of_file(kept).ids == (made,)


def test_root_key_that_seals_is_never_taken(tmp_path: Path) -> None:
    provider = of_file(tmp_path, create=True)
    with pytest.raises(KekError, match="is the one that seals"):
        provider.take(provider.id, None)
    assert of_file(tmp_path).ids == provider.ids


def test_file_to_keep_it_in_that_holds_something_else_stops_the_removal(tmp_path: Path) -> None:
    provider = of_file(tmp_path, create=True)
    old = provider.id
    provider.add()
    keep = tmp_path / "kept"
    keep.write_text("something else")
    keep.chmod(0o600)

    with pytest.raises(KekError, match="holds something else"):
        provider.take(old, keep)
    assert old in of_file(tmp_path).ids
    assert keep.read_text() == "something else"


def test_two_who_add_at_once_lose_nothing(tmp_path: Path) -> None:
    of_file(tmp_path, create=True)
    threads = [threading.Thread(target=of_file(tmp_path).add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(of_file(tmp_path).ids) == 9


def test_folder_that_cannot_be_written_is_named_and_nothing_changes(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    provider = of_file(tmp_path, create=True)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(KekError, match="cannot be read or written"):
            provider.add()
    finally:
        tmp_path.chmod(0o700)
    assert of_file(tmp_path).ids == provider.ids


def test_one_id_for_two_keys_is_refused(tmp_path: Path) -> None:
    first = generate()
    second = encode(first.split()[1], Secret(envelope.new_key()))
    path = tmp_path / "kek"
    path.write_text(first + second)
    path.chmod(0o600)

    with pytest.raises(KekError, match="two root keys of the id"):
        of_file(tmp_path)


# --- env -------------------------------------------------------------------------------------------------------------


def test_variables_hold_a_list_too() -> None:
    lines = [generate() for _ in range(3)]
    ids = [line.split()[1] for line in lines]
    settings = Settings(kek_provider="env", kek=Secret(lines[1] + lines[2]), kek_previous=Secret(lines[0]))

    assert load_provider(settings, create=False).ids == (ids[2], ids[1], ids[0])


def test_key_that_is_both_new_and_previous_seals() -> None:
    """While a variable is moved to the other on several machines, one may have it in both."""
    lines = [generate() for _ in range(2)]
    settings = Settings(kek_provider="env", kek=Secret(lines[1]), kek_previous=Secret(lines[1] + lines[0]))

    assert load_provider(settings, create=False).ids == (lines[1].split()[1], lines[0].split()[1])


def test_variables_are_the_operators_to_rotate() -> None:
    provider = load_provider(Settings(kek_provider="env", kek=Secret(generate())), create=False)
    with pytest.raises(KekError) as caught:
        provider.add()
    assert "root-key generate" in (caught.value.hint or "")
    assert provider.take(provider.id, None) is False


# --- passphrase ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cheap")
def test_passphrase_gives_the_same_root_key_again(tmp_path: Path) -> None:
    first = of_phrase(tmp_path, PHRASE, create=True)
    made = first.wrap(bytes(32))
    path = tmp_path / "kek-passphrase"

    assert of_phrase(tmp_path, PHRASE).unwrap(made.kek_id, made.wrapped) == bytes(32)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PHRASE.reveal() not in path.read_text()


@pytest.mark.usefixtures("cheap")
def test_wrong_passphrase_is_refused_by_name(tmp_path: Path) -> None:
    made = of_phrase(tmp_path, PHRASE, create=True)
    with pytest.raises(KekError, match=made.id) as caught:
        of_phrase(tmp_path, OTHER)
    assert OTHER.reveal() not in str(caught.value)


@pytest.mark.usefixtures("cheap")
def test_passphrase_is_rotated_with_the_one_before_it(tmp_path: Path) -> None:
    before = of_phrase(tmp_path, PHRASE, create=True)
    old = before.wrap(bytes(32))
    moving = of_phrase(tmp_path, OTHER, PHRASE)
    added = moving.add()

    assert moving.ids == (added, before.id)
    assert moving.unwrap(old.kek_id, old.wrapped) == bytes(32)
    assert moving.take(before.id, None)
    assert of_phrase(tmp_path, OTHER).ids == (added,)


@pytest.mark.usefixtures("cheap")
def test_same_passphrase_and_another_salt_is_another_root_key(tmp_path: Path) -> None:
    provider = of_phrase(tmp_path, PHRASE, create=True)
    first = provider.wrap(bytes(32))
    second_id = provider.add()

    with pytest.raises(KekError, match="does not open"):
        provider.unwrap(second_id, first.wrapped)


def test_lost_parameters_are_named_and_none_are_made_over_data(tmp_path: Path) -> None:
    """Without its salt a passphrase opens nothing; a new salt would make a lost one look like a wrong passphrase."""
    with pytest.raises(KekError, match="kek-passphrase is missing"):
        of_phrase(tmp_path, PHRASE)
    assert list(tmp_path.iterdir()) == []


def test_short_passphrase_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="fewer than 12 characters"):
        of_phrase(tmp_path, Secret("elevenchars"), create=True)
    with pytest.raises(KekError, match="KEYTURN_KEK_PASSPHRASE is empty"):
        load_provider(Settings(data=tmp_path, kek_provider="passphrase"), create=True)


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("change", ["memory", "salt", "check", "form"])
def test_altered_parameters_are_refused(tmp_path: Path, change: str) -> None:
    of_phrase(tmp_path, PHRASE, create=True)
    path = tmp_path / "kek-passphrase"
    parts = path.read_text().split()
    place = {"memory": 2, "salt": 5, "check": 6, "form": 0}[change]
    parts[place] = {"memory": "99999999999", "form": "keyturn-kek-argon2id-v2"}.get(change, parts[place][::-1])
    path.write_text(" ".join(parts) + "\n")

    with pytest.raises(KekError):
        of_phrase(tmp_path, PHRASE)


# --- several providers -----------------------------------------------------------------------------------------------


def test_first_provider_seals_and_all_open(tmp_path: Path) -> None:
    before = of_file(tmp_path, create=True)
    made = before.wrap(bytes(32))
    line = generate()
    both = load_provider(Settings(data=tmp_path, kek_provider="env, file", kek=Secret(line)), create=False)

    assert both.ids == (line.split()[1], before.id)
    assert both.wrap(bytes(32)).kek_id == line.split()[1]
    assert both.unwrap(made.kek_id, made.wrapped) == bytes(32)


def test_only_the_first_provider_makes_a_root_key(tmp_path: Path) -> None:
    """A second one is there for what exists already; an empty file of it would hide that it is missing."""
    with pytest.raises(KekError, match="kek is missing"):
        load_provider(Settings(data=tmp_path, kek_provider="env,file", kek=Secret(generate())), create=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", ["file,file", "file,unknown", ","])
def test_provider_named_twice_or_not_there_is_refused(tmp_path: Path, names: str) -> None:
    with pytest.raises(KekError, match="KEK"):
        load_provider(Settings(data=tmp_path, kek_provider=names), create=True)


def test_same_root_key_of_two_providers_is_refused() -> None:
    held = HeldKeks(("kek_a", Secret(envelope.new_key())))
    with pytest.raises(KekError, match="same root key"):
        RootKeys([held, held])
