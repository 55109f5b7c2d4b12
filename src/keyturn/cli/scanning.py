"""What `keyturn scan` does once its options are read.  Nothing here waits for click to be imported."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError, KeyturnError

if TYPE_CHECKING:
    from keyturn.cli.scan_options import ScanOptions
    from keyturn.scanner.model import Report

CLEAN: Final = 0
FOUND: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130

_GARBAGE: Final = 100_000
"""So many objects are made before dead cycles are looked for: rules live on, and a hook ends before any are."""


def run(options: ScanOptions) -> int:
    """Scan, show what was found, and return the exit code; nothing is raised."""
    gc.set_threshold(_GARBAGE)
    try:
        return _scan(options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except KeyturnError as error:
        return _fail(error)
    except OSError as error:
        return _fail(
            KeyturnError(f"the scan failed: {(error.strerror or type(error).__name__).lower()}", code="system")
        )
    except Exception as error:  # noqa: BLE001 -- a traceback would end with 1, which says that the scan was done
        return _fail(KeyturnError(f"the scan failed: {type(error).__name__} in the scanner"))


def _fail(error: KeyturnError) -> int:
    from keyturn.cli.failure import print_failure

    print_failure(error)
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
    how = Options(reveal=options.reveal, strict=options.strict, color=to_terminal, acceptance=True)
    text = render(report, options.form, how)
    if options.output is None:
        _print(text)
        return
    from keyturn.cli.scan_setup import write_whole

    write_whole(options.output, text, private=options.reveal)


def _print(text: str) -> None:
    """Print, and mind no reader who had enough: what was found is told by the exit code."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
