"""The options of `keyturn scan`, in one table: click's command is made of it, and so is what a hook waits less for.

Click takes a third of the time of a hook that scans three files.  Options that are written in full and need no message
are read without it; see `plain`.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMATS: Final = ("text", "json", "sarif", "junit", "csv", "github")


class ScanOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as they were given."""

    paths: tuple[str, ...] = ()
    staged: bool = False
    worktree: bool = False
    commits: str | None = None
    history: bool = False
    refs: tuple[str, ...] = ()
    stash: bool = False
    unreachable: bool = False
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    rules: tuple[str, ...] = ()
    gitleaks_default: str | None = None
    policy: str | None = None
    baseline: str | None = None
    write_baseline: str | None = None
    fingerprint_key_file: str | None = None
    form: Literal["text", "json", "sarif", "junit", "csv", "github"] = "text"
    output: str | None = None
    reveal: bool = False
    jobs: int | None = None
    cache: bool = True
    strict: bool = False
    log: bool = False
    public: bool = False
    connect: bool = False
    held: bool = False
    source: str | None = None
    next_due_seconds: int | None = None


class Takes(Enum):
    """What follows an option."""

    NOTHING = "nothing"
    TEXT = "text"
    TEXTS = "texts"
    """It can be given several times."""
    FILE = "file"
    FORMAT = "format"
    NUMBER = "number"
    COUNT = "count"
    """A number above 0."""


class Option(msgspec.Struct, frozen=True):
    """One option: `off` is its opposite, `field` that of `ScanOptions`."""

    name: str
    help: str
    takes: Takes = Takes.NOTHING
    field: str = ""
    off: str = ""
    short: str = ""
    metavar: str | None = None

    @property
    def attribute(self) -> str:
        """Return the field that it sets."""
        return self.field or self.name.strip("-").replace("-", "_")


OPTIONS: Final = (
    Option("--staged", "What is staged in the git repository, and what of it is new."),
    Option("--worktree", "The files of the git work tree: tracked ones, and new ones not ignored."),
    Option("--range", "What these commits of the git repository brought.", Takes.TEXT, "commits", metavar="A..B"),
    Option("--history", "Everything that the git repository ever held."),
    Option("--ref", "With --history: only what this ref holds; repeatable.", Takes.TEXTS, "refs"),
    Option("--stash", "With --history: what is stashed too."),
    Option("--unreachable", "With --history: what no ref leads to, but is still stored, too."),
    Option("--exclude", "Pass over these paths, such as `*.svg` or `vendor/**`; repeatable.", Takes.TEXTS),
    Option("--follow-links", "Scan what symbolic links lead to."),
    Option("--rules", "These rules instead: a file of ours or of gitleaks; `keyturn`: ours too.", Takes.TEXTS),
    Option("--gitleaks-default", "Your copy of the file that `useDefault` of gitleaks stands for.", Takes.FILE),
    Option("--policy", "What may stand where; else `.keyturn/leaks.toml` of what is scanned.", Takes.FILE),
    Option("--baseline", "What was judged before; else `.keyturn/baseline.toml` of what is scanned.", Takes.FILE),
    Option("--write-baseline", "Write what is found as a baseline, and pass.", Takes.FILE),
    Option("--fingerprint-key-file", "A key that fingerprints are made with; it is not published.", Takes.FILE),
    Option("--format", "The form of the report.", Takes.FORMAT, "form"),
    Option("--output", "Write the report to this file, in one step, and not to stdout.", Takes.FILE, short="-o"),
    Option("--reveal", "Let the report hold the secrets: text, json and csv."),
    Option("--jobs", "So many processes; else one for each processor.", Takes.NUMBER, short="-j"),
    Option("--cache", "Keep compiled rules and names of clean blobs for the next run.", off="--no-cache"),
    Option("--strict", "What was not scanned for a bound, or is missing or closed, is an error too."),
    Option("--log", "It is the log of a build, wherever it stands."),
    Option("--public", "Everybody can read what is scanned."),
    Option("--connect", "Ask the server whose the keys are; only digests are sent.", off="--offline"),
    Option("--held", "With --connect: ask about every word that may be a held secret."),
    Option(
        "--report", "Report to the server under this name; includes --connect.", Takes.TEXT, "source", metavar="NAME"
    ),
    Option("--next-due-seconds", "With --report: when the next report is expected.", Takes.COUNT),
)
"""Every option, in the order in which help shows them."""


def plain(arguments: Sequence[str]) -> ScanOptions | None:
    """Return what click would make of the arguments, when they are written in full; None leaves them to click.

    Numbers, abbreviations, `--name=value`, `--`, help and whatever is wrong are left to it.
    """
    known = {one.name: one for one in OPTIONS} | {one.short: one for one in OPTIONS if one.short}
    opposite = {one.off: one for one in OPTIONS if one.off}
    paths: list[str] = []
    given: dict[str, Any] = {}
    left = iter(arguments)
    for argument in left:
        if argument == "-" or argument[:1] not in {"-", ""}:
            paths.append(argument)
        elif argument in opposite:
            given[opposite[argument].attribute] = False
        elif argument not in known or not _take(known[argument], left, given):
            return None
    return ScanOptions(paths=tuple(paths), **given)


def _take(option: Option, left: Any, given: dict[str, Any]) -> bool:  # noqa: ANN401 -- an iterator of arguments
    """Take an option and what follows it; False when that is for click."""
    if option.takes is Takes.NOTHING:
        given[option.attribute] = True
        return True
    value = next(left, "")
    if value[:1] in {"-", ""} or option.takes in {Takes.NUMBER, Takes.COUNT}:
        return False
    if (option.takes is Takes.FORMAT and value not in FORMATS) or (option.takes is Takes.FILE and _is_refused(value)):
        return False
    given[option.attribute] = (*given.get(option.attribute, ()), value) if option.takes is Takes.TEXTS else value
    return True


def _is_refused(file: str) -> bool:
    """Tell whether click refuses a file: one that is a folder, or is there and cannot be read."""
    try:
        return Path(file).is_dir() or (Path(file).exists() and not os.access(file, os.R_OK))
    except OSError:  # what that says of a name that is too long, or in a folder that is closed, click leaves open
        return True
