"""A private MariaDB server for tests, started from the `mariadbd` of the machine where there is one.

It is a child of this process and dies with it, listens on 127.0.0.1 and on a Unix socket, runs as `nobody` when the
tests run as root, and has one administrator, `keyturn`, with a password that is made for it.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

from keyturn.errors import UnavailableError
from keyturn.testing.child import User, current_user, spawn, tail, unprivileged_user
from keyturn.testing.ports import free_port

FOLDER_PREFIX = "keyturn-mariadb-"
START_SECONDS_MAX = 240.0
STOP_SECONDS_MAX = 120.0
USER = "keyturn"
_OWN = frozenset({USER, "", "root", "mariadb.sys", "nobody"})
_PLACES = ("/usr/sbin/mariadbd", "/usr/libexec/mariadbd", "/usr/sbin/mysqld")
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def find_mariadbd() -> Path | None:
    """Return where the server's program is; None when it is not installed."""
    found = [shutil.which("mariadbd"), *_PLACES]
    return next((Path(place) for place in found if place and Path(place).exists()), None)


class MariadbServer:
    """One running server; use it as a context manager, or call `stop`."""

    def __init__(self, folder: Path, program: Path, user: User) -> None:
        """Not for callers: use `start`."""
        self.folder = folder
        self.port = 0
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program
        self._user = user

    @classmethod
    def start(cls) -> Self:
        """Make an empty server in a temporary folder and start it.

        Raises `UnavailableError` when there is no `mariadbd`, or with the end of its log if it does not come up.
        """
        program = find_mariadbd()
        if program is None:
            msg = "expected mariadbd, found none installed"
            raise UnavailableError(msg)
        user = unprivileged_user()
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        server = cls(folder, program, user)
        try:
            server._initialise()
            server.port = free_port()
            server.restart()
        except BaseException:
            server.stop()
            raise
        return server

    def connect(self, user: str = USER, password: str | None = None) -> Any:  # noqa: ANN401 -- pymysql has no types
        """Open a pymysql connection, the administrator's unless another user is named."""
        import pymysql

        given = self.password if password is None else password
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=user, password=given, autocommit=True, connect_timeout=10
        )

    def users(self) -> list[str]:
        """Return the names of all users but those of the server itself."""
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT User FROM mysql.user")
            return sorted({row[0] for row in cursor.fetchall()} - _OWN)

    def pause(self) -> None:
        """Stop it where it is (SIGSTOP); connections stay open and unanswered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL); the folder stays, and `restart` recovers it."""
        process = self._running()
        process.kill()
        process.wait()
        self.process = None

    def restart(self) -> None:
        """Start it, on the same port as before; kills it first if it is running."""
        if self.process is not None:
            self.kill()
        self.process = self._spawn(f"--port={self.port}", "--bind-address=127.0.0.1", f"--init-file={self._init_file}")
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = tail(self.folder / "log")
                self.kill()
                msg = f"MariaDB did not come up\n{log}"
                raise UnavailableError(msg)
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and remove its folder; harmless when it was stopped before."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS_MAX)
                self.process = None
            if self.process is not None:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def _init_file(self) -> Path:
        return self.folder / "init.sql"

    def _initialise(self) -> None:
        data = self.folder / "data"
        (data / "mysql").mkdir(parents=True, mode=0o700)
        statements = [
            "CREATE DATABASE IF NOT EXISTS app",
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{self.password}'",
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION",
        ]
        self._init_file.touch(mode=0o600)
        self._init_file.write_text(";\n".join(statements) + ";\n")
        if self._user != current_user():
            self.folder.chmod(0o711)
            for path in (data, data / "mysql", self._init_file):
                os.chown(path, self._user.uid, self._user.gid)
        # What `mariadb-install-db` feeds the server, without the script, which wants a user of its own.
        share = next((one for one in (Path("/usr/share/mysql"), Path("/usr/share/mariadb")) if one.exists()), None)
        if share is None:
            msg = "expected the system tables of MariaDB in /usr/share/mysql"
            raise UnavailableError(msg)
        names = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
        parts = [(share / name).read_text() for name in names if (share / name).exists()]
        script = "create database if not exists mysql;\nuse mysql;\n" + "\n".join(parts)
        done = subprocess.run(
            [str(self._program), *self._options(), "--bootstrap", "--skip-networking"],
            input=script.encode(),
            capture_output=True,
            check=False,
            timeout=START_SECONDS_MAX,
            env=_ENVIRONMENT,
            cwd=self.folder,
            user=self._user.uid if self._user != current_user() else None,
            group=self._user.gid if self._user != current_user() else None,
        )
        if done.returncode != 0:
            msg = f"MariaDB's system tables were not made\n{done.stderr.decode(errors='replace')[-2000:]}"
            raise UnavailableError(msg)

    def _options(self) -> list[str]:
        data = self.folder / "data"
        return [
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={data / 'socket'}",
            f"--pid-file={data / 'pid'}",
            f"--tmpdir={data}",
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=8M",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-name-resolve",
        ]

    def _spawn(self, *more: str) -> "subprocess.Popen[bytes]":
        return spawn(
            [self._program, *self._options(), *more],
            directory=self.folder,
            log=self.folder / "log",
            environment=_ENVIRONMENT,
            death_signal=signal.SIGKILL,
            user=self._user,
        )

    def _answers(self) -> bool:
        import pymysql

        with contextlib.suppress(pymysql.MySQLError, OSError):
            self.connect()
            return True
        return False

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is None:
            msg = "expected a running MariaDB server, found one that was stopped or killed"
            raise UnavailableError(msg)
        return self.process
