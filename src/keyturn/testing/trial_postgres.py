"""A PostgreSQL server to try things on: `python -m keyturn.testing.trial_postgres FILE`.

It runs until it is stopped (Ctrl-C, or the end of the terminal), and nothing of it stays.  FILE, which only its owner
may read, is a shell file that says how the server is reached, for `psql` and other clients.
"""

import os
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from keyturn.testing.postgres import PostgresServer


def describe(server: PostgresServer) -> str:
    """Return the shell file: the variables that clients of PostgreSQL know, and where a `psql` is."""
    parts = urlsplit(server.url())
    known = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": parts.username or "",
        "PGPASSWORD": parts.password or "",
        "PGDATABASE": "postgres",
        "PSQL": str(server.binaries / "psql"),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in known.items())


def main(file: str) -> None:
    """Start a server, say in the file how it is reached, and run until told to stop."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    path = Path(file)
    with PostgresServer.start(fsync=False) as server:
        text = describe(server)
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
            written.write(text)
        try:
            print(f"PostgreSQL runs on 127.0.0.1:{server.port}; {file} says how to reach it", flush=True)  # noqa: T201 -- for the person at the terminal
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            path.unlink(missing_ok=True)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m keyturn.testing.trial_postgres FILE")
    main(sys.argv[1])
