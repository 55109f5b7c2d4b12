"""`keyturn scan`: finds leaked keys in files, in what git holds, and in what is piped in.  It needs no server.

Exit codes: 0 nothing to act on, 1 something to act on, 2 the scan failed or is not whole: an error is never a pass.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

import click
import msgspec

from keyturn.errors import InputError, KeyturnError

if TYPE_CHECKING:
    from keyturn.scanner.model import Report

CLEAN: Final = 0
FOUND: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130

_GARBAGE: Final = 100_000
"""So many objects are made before dead cycles are looked for: rules live on, and a hook ends before any are."""

_FILE: Final = click.Path(dir_okay=False)
_FORMATS: Final = ("text", "json", "sarif", "junit", "csv", "github")


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


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--staged", is_flag=True, help="What is staged in the git repository, and what of it is new.")
@click.option(
    "--worktree", is_flag=True, help="The files of the git work tree: tracked ones, and new ones not ignored."
)
@click.option("--range", "commits", metavar="A..B", help="What these commits of the git repository brought.")
@click.option("--history", is_flag=True, help="Everything that the git repository ever held.")
@click.option("--ref", "refs", multiple=True, help="With --history: only what this ref holds; repeatable.")
@click.option("--stash", is_flag=True, help="With --history: what is stashed too.")
@click.option("--unreachable", is_flag=True, help="With --history: what no ref leads to, but is still stored, too.")
@click.option("--exclude", multiple=True, help="Pass over these paths, such as `*.svg` or `vendor/**`; repeatable.")
@click.option("--follow-links", is_flag=True, help="Scan what symbolic links lead to.")
@click.option("--rules", multiple=True, help="These rules instead: a file of ours or of gitleaks; `keyturn`: ours too.")
@click.option("--gitleaks-default", type=_FILE, help="Your copy of the file that `useDefault` of gitleaks stands for.")
@click.option("--policy", type=_FILE, help="What may stand where; else `.keyturn/leaks.toml` of what is scanned.")
@click.option(
    "--baseline", type=_FILE, help="What was judged before; else `.keyturn/baseline.toml` of what is scanned."
)
@click.option("--write-baseline", type=_FILE, help="Write what is found as a baseline, and pass.")
@click.option("--fingerprint-key-file", type=_FILE, help="A key that fingerprints are made with; it is not published.")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", help="The form of the report.")
@click.option("--output", "-o", type=_FILE, help="Write the report to this file, in one step, and not to stdout.")
@click.option("--reveal", is_flag=True, help="Let the report hold the secrets: text, json and csv.")
@click.option("--jobs", "-j", type=int, help="So many processes; else one for each processor.")
@click.option("--cache/--no-cache", default=True, help="Keep compiled rules and names of clean blobs for the next run.")
@click.option(
    "--strict", is_flag=True, help="What was not scanned for a bound, or is missing or closed, is an error too."
)
@click.option("--log", is_flag=True, help="It is the log of a build, wherever it stands.")
@click.option("--public", is_flag=True, help="Everybody can read what is scanned.")
@click.option("--connect/--offline", default=False, help="Ask the server whose the keys are; only digests are sent.")
@click.option("--held", is_flag=True, help="With --connect: ask about every word that may be a held secret.")
@click.option("--report", "source", metavar="NAME", help="Report to the server under this name; includes --connect.")
@click.option("--next-due-seconds", type=click.IntRange(min=1), help="With --report: when the next report is expected.")
def scan(**given: Any) -> int:  # noqa: ANN401 -- click checked the types
    """Find leaked keys in PATHS, by default here; `-` is standard input.

    A PATH can be a folder, a file, an archive or the tarball of an image; with --staged, --worktree, --range and
    --history it is a git repository.
    """
    options = ScanOptions(**given)
    gc.set_threshold(_GARBAGE)
    try:
        return _scan(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except KeyturnError as error:
        from keyturn.cli.failure import print_failure

        print_failure(error)
        return FAILED
    except Exception as error:  # noqa: BLE001 -- a traceback would end with 1, which says that the scan was done
        click.echo(f"error: the scan failed: {type(error).__name__} in the scanner [internal]", err=True)
        return FAILED


def _scan(options: ScanOptions) -> int:
    from keyturn.cli.scan_setup import judged_by, prepare
    from keyturn.scanner.running import errors_of, scan

    _check(options)
    prepared = prepare(options)
    try:
        report = scan(prepared.source, prepared.engine, prepared.settings)
    finally:
        prepared.close()
    report.judged_by = judged_by(options)
    if prepared.known is not None:
        prepared.known(report)
    failed = bool(errors_of(report, strict=options.strict))
    if options.write_baseline is not None and not failed:
        prepared.write_baseline(report)
    show(report, options)
    if options.write_baseline is not None:
        return FAILED if failed else CLEAN
    return exit_code(report, strict=options.strict)


def exit_code(report: Report, *, strict: bool = False) -> int:
    """Return what a scan ends with: found before failed, and failed before clean."""
    from keyturn.scanner.running import errors_of

    if any(finding.verdict == "block" for finding in report.findings):
        return FOUND
    return FAILED if errors_of(report, strict=strict) else CLEAN


def _check(options: ScanOptions) -> None:
    modes = [options.staged, options.worktree, options.commits is not None, options.history]
    if sum(modes) > 1:
        raise InputError("expected one of --staged, --worktree, --range and --history")
    if any(modes) and len(options.paths) > 1:
        raise InputError("expected one git repository", field="PATHS")
    if "-" in options.paths and (any(modes) or len(options.paths) > 1):
        raise InputError("standard input is scanned alone", field="PATHS")
    if not options.history and (options.refs or options.stash or options.unreachable):
        raise InputError("--ref, --stash and --unreachable need --history")
    if options.next_due_seconds is not None and options.source is None:
        raise InputError("--next-due-seconds needs --report")
    if options.held and not (options.connect or options.source):
        raise InputError("--held needs --connect or --report")
    if options.reveal:
        from keyturn.scanner.reporting.options import REVEALING

        if options.form not in REVEALING:
            raise InputError(f"the form {options.form} never holds a secret", field="--reveal")
    if options.write_baseline is not None and options.baseline not in {None, options.write_baseline}:
        raise InputError("a baseline is written over the one that is read", field="--write-baseline")


def show(report: Report, options: ScanOptions) -> None:
    """Print or write a report."""
    from keyturn.scanner.reporting import render
    from keyturn.scanner.reporting.options import Options

    to_terminal = options.output is None and sys.stdout.isatty()
    text = render(report, options.form, Options(reveal=options.reveal, strict=options.strict, color=to_terminal))
    if options.output is None:
        _print(text)
        return
    from keyturn.cli.scan_setup import write_whole

    write_whole(options.output, text, private=options.reveal)


def _print(text: str) -> None:
    """Print, and mind no reader who had enough: what was found is told by the exit code."""
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
    except BrokenPipeError:
        # Or the interpreter would try again at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
