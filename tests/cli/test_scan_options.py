"""A hook's scan is run without click: what is read without it means the same, and what is not plain is left to it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import click
import pytest

from keyturn.cli import scan as scan_command
from keyturn.cli.scan_options import OPTIONS, ScanOptions, Takes, plain

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {Takes.TEXT: "a..b", Takes.TEXTS: "one", Takes.FILE: "some.file", Takes.FORMAT: "sarif"}


def by_click(arguments: list[str]) -> ScanOptions:
    context = scan_command.scan.make_context("scan", list(arguments))
    return ScanOptions(**context.params)


def written(number: int) -> list[str]:
    option = OPTIONS[number]
    return [option.name, *([WORDS[option.takes]] if option.takes in WORDS else [])]


PLAIN = [number for number, option in enumerate(OPTIONS) if option.takes not in {Takes.NUMBER, Takes.COUNT}]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["."],
        ["-"],
        ["a", "--staged", "b"],
        *([*written(number)] for number in PLAIN),
        [word for number in PLAIN for word in written(number)],
        ["--exclude", "a", "x", "--exclude", "b"],
        ["--rules", "keyturn", "--rules", "ours.toml"],
        ["--format", "json", "--format", "csv", "-o", "report.csv"],
        ["--no-cache", "--cache", "--offline"],
        ["--connect", "--offline"],
    ],
)
def test_options_that_are_written_in_full_mean_what_click_takes_them_for(arguments: list[str]) -> None:
    assert plain(arguments) == by_click(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["-h"],
        ["--stage"],
        ["--Staged"],
        ["--nothing"],
        ["--staged=1"],
        ["--format=json"],
        ["-ojson"],
        ["--format", "xml"],
        ["--output"],
        ["--output", "--staged"],
        ["--exclude", ""],
        ["--policy", "."],
        ["--jobs", "2"],
        ["-j", "x"],
        ["--next-due-seconds", "60"],
        ["--", "--staged"],
        [""],
        ["-x"],
    ],
)
def test_whatever_else_is_left_to_click(arguments: list[str]) -> None:
    assert plain(arguments) is None


def test_every_field_is_set_by_one_option() -> None:
    fields = [option.attribute for option in OPTIONS]
    assert sorted([*fields, "paths"]) == sorted(ScanOptions.__struct_fields__)
    options = [one for one in scan_command.scan.params if isinstance(one, click.Option)]
    assert [one.opts[0] for one in options] == [option.name for option in OPTIONS]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["."], 0), ([".", "--format", "json"], 0), ([".", "-j", "1"], 0), (["absent"], 2), (["--refs"], 2), (["-h"], 0)],
)
def test_both_ways_end_with_the_same_code(arguments: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing\n")
    assert ended(["-m", "keyturn", "scan", *arguments], tmp_path).returncode == code


def test_a_plain_scan_imports_neither_click_nor_what_reports_in_colour(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing\n")
    script = (
        "import os, sys; sys.argv = ['keyturn', 'scan', '.', '--format', 'json']\n"
        "os._exit = sys.exit\n"
        "from keyturn.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "print([one for one in ('click', 'rich', 'httpx', 'sqlalchemy') if one in sys.modules], file=sys.stderr)"
    )
    assert ended(["-c", script], tmp_path).stderr.strip() == b"[]"


def test_a_hook_imports_nothing_that_reads_source_code(
    tmp_path: Path, rules_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes dataclasses and reads annotations would be a tenth of its time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(rules_cache))
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    (tmp_path / "note.txt").write_text("token = 'ab12cd34ef56gh78ij90kl12'\n")
    for command in (["init", "-q"], ["add", "--all"]):
        subprocess.run([shutil.which("git") or "git", *command], cwd=tmp_path, check=True)
    script = (
        "import os, sys; sys.argv = ['keyturn', 'scan', '--staged', '--format', 'json']\n"
        "before = set(sys.modules); os._exit = sys.exit\n"
        "from keyturn.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 1, end.code\n"
        "heavy = {'ast', 'dataclasses', 'inspect', 'typing_extensions'}\n"
        "print(sorted(heavy & set(sys.modules) - before), file=sys.stderr)"
    )
    assert ended(["-c", script], tmp_path).stderr.strip() == b"[]"


def test_a_module_of_the_folder_that_is_scanned_is_never_run(tmp_path: Path) -> None:
    """The hook's interpreter is started with -P: a work tree's own modules are not ours."""
    for name in ("click", "msgspec", "keyturn", "sitecustomize", "json", "hyperscan", "re2"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)\n")
    assert ended(["-P", "-m", "keyturn", "scan", "."], tmp_path).returncode == 0


def test_a_file_that_click_would_refuse_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "leaks.toml"
    policy.write_text("")
    assert plain(["--policy", str(policy)]) is not None
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs this may be allowed to read everything
    assert plain(["--policy", str(policy)]) is None


def test_a_name_that_is_too_long_for_a_file_is_a_failure_and_no_finding(tmp_path: Path) -> None:
    assert ended(["-m", "keyturn", "scan", "--output", "a" * 5000, "."], tmp_path).returncode == 2


@pytest.mark.parametrize("further", [[], ["--jobs", "1"]])
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_report_is_written_without_a_standard_stream(further: list[str], closed: str, tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("nothing")
    run = shlex.join([sys.executable, "-c", "from keyturn.cli.entry import main; main()"])
    command = f"{run} {shlex.join(['scan', '--output', 'report', *further, 'clean.txt'])} {closed}"
    assert subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "report").exists()


@pytest.mark.parametrize("further", [[], ["--jobs", "1"]])
def test_an_error_that_cannot_be_told_is_no_finding(further: list[str], tmp_path: Path) -> None:
    run = shlex.join([sys.executable, "-m", "keyturn", "scan", *further, "absent"])
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, {**buffered, "PYTHONUNBUFFERED": "1"}):
        done = subprocess.run(["/bin/sh", "-c", f"{run} 2>/dev/full"], cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 2


@pytest.mark.parametrize("further", [[], ["--jobs", "1"], ["--no-cache"]])
def test_a_report_that_cannot_be_told_is_a_failure_and_no_finding(further: list[str], tmp_path: Path) -> None:
    (tmp_path / "clean.txt").write_text("nothing")
    run = shlex.join([sys.executable, "-m", "keyturn", "scan", *further, "clean.txt"])
    for full in (">/dev/full", ">/dev/full 2>&1"):
        assert subprocess.run(["/bin/sh", "-c", f"{run} {full}"], cwd=tmp_path, check=False).returncode == 2


def ended(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[Any]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, check=False)
