from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyturn.errors import InputError, StorageError
from keyturn.scanner.hooks.bypass import RECORD, Bypass, push_options, pusher_of, read_bypass, record
from keyturn.scanner.hooks.pushing import RefChange, new_objects, read_pushed, read_received

OLD, NEW, NONE = "a" * 40, "b" * 40, "0" * 40
ONE, TWO = "1f" * 20, "2e" * 20


def test_a_bypass_names_findings_and_a_reason() -> None:
    options = [f"keyturn.allow={ONE}", "ci.skip", f"keyturn.allow={TWO}", "keyturn.reason= a test key\n of a vendor "]
    assert read_bypass(options) == Bypass(frozenset({ONE, TWO}), "a test key of a vendor")


def test_no_bypass_is_asked_for_by_other_options() -> None:
    assert read_bypass(["ci.skip", "keyturn.reason=why"]) == Bypass(frozenset(), "why")


@pytest.mark.parametrize("options", [[f"keyturn.allow={ONE}"], ["keyturn.allow=all", "keyturn.reason=x"]])
def test_a_bypass_without_a_reason_or_a_fingerprint_is_refused(options: list[str]) -> None:
    with pytest.raises(InputError):
        read_bypass(options)


def test_options_are_read_as_git_gives_them() -> None:
    assert push_options({"GIT_PUSH_OPTION_COUNT": "2", "GIT_PUSH_OPTION_0": "a", "GIT_PUSH_OPTION_1": "b=c"}) == [
        "a",
        "b=c",
    ]
    assert push_options({}) == []
    assert push_options({"GIT_PUSH_OPTION_COUNT": "x"}) == []


def test_who_pushes_is_told_by_the_program_in_front() -> None:
    assert pusher_of({"REMOTE_USER": "a\x1b[2Jb", "LOGNAME": "git"}) == "a[2Jb"
    assert pusher_of({"LOGNAME": "git"}) == "git"
    assert pusher_of({}) == "unknown"


def test_a_bypass_is_recorded_line_by_line(tmp_path: Path) -> None:
    changes = [RefChange("refs/heads/main", OLD, NEW)]
    for _ in range(2):
        record(
            tmp_path, Bypass(frozenset({ONE}), "why"), [ONE], pusher="ann", at="2026-01-02T03:04:05Z", changes=changes
        )
    lines = [json.loads(line) for line in (tmp_path / RECORD).read_text().splitlines()]
    assert (
        lines
        == [
            {
                "at": "2026-01-02T03:04:05Z",
                "fingerprints": [ONE],
                "pusher": "ann",
                "reason": "why",
                "refs": [{"new": NEW, "old": OLD, "ref": "refs/heads/main"}],
            }
        ]
        * 2
    )


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A bypass that leaves no trace would be none that is documented: the push is refused."""
    (tmp_path / RECORD).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        record(tmp_path, Bypass(frozenset({ONE}), "why"), [ONE], pusher="ann", at="", changes=[])
    assert not (tmp_path / "elsewhere").exists()


def test_the_lines_of_a_push_are_read() -> None:
    received = read_received(f"{OLD} {NEW} refs/heads/main\n{NONE} {NEW} refs/tags/v1\n{OLD} {NONE} refs/heads/x\n")
    assert received == [
        RefChange("refs/heads/main", OLD, NEW),
        RefChange("refs/tags/v1", "", NEW),
        RefChange("refs/heads/x", OLD, ""),
    ]
    assert new_objects(received) == (NEW,)
    assert read_pushed(f"refs/heads/a {NEW} refs/heads/b {OLD}\n") == [RefChange("refs/heads/b", OLD, NEW)]


@pytest.mark.parametrize(
    "text", ["x", f"{OLD} {NEW}", f"{OLD} --all refs/heads/main", f"{OLD[:-1]} {NEW} refs/heads/a"]
)
def test_a_line_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="line 1"):
        read_received(text)
