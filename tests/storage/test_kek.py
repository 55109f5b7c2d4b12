import base64
import os
import stat
import traceback
from pathlib import Path

import pytest

from keyturn.config import Settings
from keyturn.errors import KekError
from keyturn.kernel import envelope
from keyturn.kernel.secret import Secret
from keyturn.storage import kek_held as kek
from keyturn.storage.kek import load_provider


def settings(folder: Path, **named: object) -> Settings:
    return Settings(data=folder, **named)  # type: ignore[arg-type]


def test_first_start_makes_a_private_file(tmp_path: Path) -> None:
    """Nobody else on the machine may read the one secret outside the database."""
    before = os.umask(0)
    try:
        made = load_provider(settings(tmp_path), create=True)
    finally:
        os.umask(before)

    path = tmp_path / "kek"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["kek"]
    assert load_provider(settings(tmp_path), create=False).id == made.id


def test_existing_key_is_never_replaced(tmp_path: Path) -> None:
    first = load_provider(settings(tmp_path), create=True)
    before = (tmp_path / "kek").read_bytes()

    assert load_provider(settings(tmp_path), create=True).id == first.id
    assert (tmp_path / "kek").read_bytes() == before


@pytest.mark.parametrize("create", [True, False])
def test_missing_key_over_existing_data_is_named_and_none_is_made(tmp_path: Path, create: bool) -> None:  # noqa: FBT001
    """A new key over existing data would make a lost key look like an empty installation."""
    with pytest.raises(KekError, match="kek_wanted") as caught:
        load_provider(settings(tmp_path), create=create, wanted=["kek_wanted"])

    assert "missing" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_provider(settings(tmp_path), create=True)
    (tmp_path / "kek").chmod(0o640)
    with pytest.raises(KekError) as caught:
        load_provider(settings(tmp_path), create=False)

    assert caught.value.hint == f"chmod 600 {tmp_path / 'kek'}"


def test_file_elsewhere_is_used_when_named(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(kek.generate())
    elsewhere.chmod(0o600)

    assert load_provider(settings(tmp_path, kek_file=elsewhere), create=False).id.startswith("kek_")
    assert not (tmp_path / "kek").exists()


def test_folder_in_its_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "kek").mkdir()
    with pytest.raises(KekError, match="cannot be read"):
        load_provider(settings(tmp_path), create=True)


def test_text_form_is_read_back() -> None:
    key = Secret(envelope.new_key())
    text = kek.encode("kek_0000000000000000000000", key)

    assert kek.decode(text, source="a test") == ("kek_0000000000000000000000", key)


GOOD = base64.b64encode(bytes(range(32))).decode()
HIDDEN = "c2VjcmV0LXBhcnQ"


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"keyturn-kek-v1 {HIDDEN}",
        f"keyturn-kek-v2 kek_0000000000000000000000 {GOOD}",
        f"keyturn-kek-v1 kid_0000000000000000000000 {GOOD}",
        f"keyturn-kek-v1 kek_short {GOOD}",
        f"keyturn-kek-v1 kek_0000000000000000000000 {HIDDEN}",
        f"keyturn-kek-v1 kek_0000000000000000000000 {HIDDEN}!",
        f"keyturn-kek-v1 kek_0000000000000000000000 {GOOD} {HIDDEN}",
        f"{HIDDEN}\x00\ufffd",
    ],
)
def test_malformed_text_is_refused_and_never_shown(text: str) -> None:
    """The file may hold a key in another form: nothing of it may reach a log."""
    with pytest.raises(KekError) as caught:
        kek.decode(text, source="the file x")

    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert "the file x" in str(caught.value)
    assert HIDDEN not in shown
    assert GOOD not in shown
    assert caught.value.__context__ is None


def test_environment_provides_a_key(tmp_path: Path) -> None:
    text = kek.generate()
    provider = load_provider(settings(tmp_path, kek_provider="env", kek=Secret(text)), create=True)

    assert provider.id == text.split()[1]
    assert list(tmp_path.iterdir()) == []


def test_empty_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="KEYTURN_KEK is empty"):
        load_provider(settings(tmp_path, kek_provider="env"), create=True)


def test_unknown_provider_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(KekError, match=r"'vault'.*env, file"):
        load_provider(settings(tmp_path, kek_provider="vault"), create=True)


def test_key_wrapped_under_another_is_refused_by_name(tmp_path: Path) -> None:
    first = load_provider(settings(tmp_path, kek_provider="env", kek=Secret(kek.generate())), create=False)
    second = load_provider(settings(tmp_path, kek_provider="env", kek=Secret(kek.generate())), create=False)
    made = first.wrap(envelope.new_key())

    with pytest.raises(KekError, match=first.id):
        second.unwrap(made.kek_id, made.wrapped)
    with pytest.raises(KekError, match=second.id):
        second.unwrap(second.id, made.wrapped)
