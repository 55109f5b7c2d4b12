"""Where `keyturn` begins: a scan whose options are plain is run without click, because a hook waits for it."""

from __future__ import annotations

import os
import sys

SCAN = "scan"


def main() -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == [SCAN]:
        _load_msgspec()
        from keyturn.cli.scan_options import plain

        options = plain(arguments[1:])
        if options is not None:
            from keyturn.cli.failure import flush_streams
            from keyturn.cli.scanning import CLEAN, FAILED, FOUND, run

            code = run(options)
            if not flush_streams() and code == CLEAN:
                code = FAILED
            if code in {CLEAN, FOUND}:
                # What was done is closed: taking every module and rule apart takes a tenth of a hook's time.
                os._exit(code)
            sys.exit(code)
    from keyturn.cli.main import main as whole

    whole()


def _load_msgspec() -> None:
    """Load msgspec without `typing_extensions`, which it takes only where it is there and which loads `inspect`."""
    name = "typing_extensions"
    if name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules[name]
