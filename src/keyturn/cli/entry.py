"""Where `keyturn` begins: a scan whose options are plain is run without click, because a hook waits for it."""

from __future__ import annotations

import sys

SCAN = "scan"


def main() -> None:
    """Run the command line and end the process with its exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == [SCAN]:
        from keyturn.cli.scan_options import plain

        options = plain(arguments[1:])
        if options is not None:
            from keyturn.cli.scanning import run

            sys.exit(run(options))
    from keyturn.cli.main import main as whole

    whole()
