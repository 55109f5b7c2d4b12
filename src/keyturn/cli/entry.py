"""Where `keyturn` begins: a scan whose options are plain is run without click, because a hook waits for it."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

SCAN = "scan"


def main() -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == [SCAN]:
        from keyturn.cli.scan_options import plain

        options = plain(arguments[1:])
        if options is not None:
            from keyturn.cli.scanning import CLEAN, FOUND, run

            code = run(options)
            if code in {CLEAN, FOUND}:
                _end(code)
            sys.exit(code)
    from keyturn.cli.main import main as whole

    whole()


def _end(code: int) -> NoReturn:
    """End at once what was done and closed: taking every module and rule apart takes a tenth of a hook's time."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as it is for who was started without one
                stream.flush()
    except OSError:  # whoever read had enough
        sys.exit(code)
    os._exit(code)
