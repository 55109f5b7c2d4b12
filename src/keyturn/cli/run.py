"""`keyturn run`: start a program with held secrets in its environment or in private files."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keyturn.cli.session import server_and_token
from keyturn.config import inherited_environment
from keyturn.delivery.selection import Selection, collect, names_of, parse_reference, paths_of
from keyturn.errors import ConfigError, InputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keyturn.client import Keyturn
    from keyturn.delivery.files import PrivateFolder
    from keyturn.delivery.offline import OfflineCopy
    from keyturn.delivery.selection import Collected
    from keyturn.delivery.supervision import Notify, Restart

TIMEOUT_SECONDS: Final = 5.0
FOLDER_VARIABLE: Final = "SECRETS_DIR"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KEPT: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|COLORTERM|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|PWD|XDG_RUNTIME_DIR"
)
_SIGNALS: Final = {one.name.removeprefix("SIG"): one for one in signal.Signals}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the options ask for."""

    selection: Selection
    command: tuple[str, ...]
    folder: str | None = None
    watch: str | None = None
    offline_copy: Path | None = None
    max_age_seconds: float = 3600.0
    mask: bool = False
    clean_env: bool = False
    pass_token: bool = False
    grace_seconds: float = 10.0

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that tells the program of a change; None for a restart."""
        if self.watch is None or self.watch == "restart":
            return None
        name = self.watch.partition("=")[2].upper().removeprefix("SIG")
        if not self.watch.startswith("signal=") or name not in _SIGNALS:
            raise InputError(f"--watch is {self.watch[:40]!r}; expected restart or signal=NAME, such as signal=HUP")
        if not self.has_files:
            raise InputError(
                "--watch signal=… needs --files or --file",
                hint="the environment of a running program cannot be changed",
            )
        return _SIGNALS[name]

    @property
    def has_files(self) -> bool:
        """Whether values are written to files."""
        return self.folder is not None or bool(self.selection.files)


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Exit status: that of CMD; 126 when it cannot be run and 127 when it is not found.",
)
@click.option("--env", "environment", help="Environment of the secrets, such as production; with --service.")
@click.option("--service", help="Take every secret below ENV/SERVICE/, or the secret ENV/SERVICE itself.")
@click.option("--secret", "paths", multiple=True, metavar="PATH", help="Take the fields of this secret; repeatable.")
@click.option("--map", "maps", multiple=True, metavar="NAME=PATH#FIELD", help="One field as a variable; repeatable.")
@click.option("--prefix", is_flag=True, help="Begin each variable with the name of its secret, as in STRIPE_KEY.")
@click.option("--files", "folder", metavar="DIR", help="Write fields to DIR/SECRET/FIELD, not to variables; or `auto`.")
@click.option(
    "--file", "files", multiple=True, metavar="NAME=PATH#FIELD", help="One field as a file; NAME is its path."
)
@click.option(
    "--watch", metavar="restart|signal=NAME", help="On change, restart CMD, or rewrite files and send a signal."
)
@click.option(
    "--grace-seconds", type=click.FloatRange(0, 3600), default=10.0, show_default=True, help="Before SIGKILL."
)
@click.option(
    "--offline-cache",
    "offline_copy",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Sealed copy for an outage.",
)
@click.option(
    "--max-age", default="1h", show_default=True, help="Oldest copy to start with, such as 90s, 15m, 1h or 2d."
)
@click.option("--mask", is_flag=True, help="Mask the values in what CMD prints; best effort.")
@click.option("--clean-env", is_flag=True, help="Pass on only PATH, HOME, TERM, the locale and their like.")
@click.option("--pass-token", is_flag=True, help="Let CMD have the management token too.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARGS]...")
def run(*, command: tuple[str, ...], max_age: str, **given: Any) -> None:  # noqa: ANN401 -- see Wish
    """Run a program with held secrets as environment variables or files.

    No value is ever on a command line, and no shell is in between.
    """
    selection = Selection(
        folders=_folders(given.pop("environment"), given.pop("service")),
        paths=given.pop("paths"),
        maps=tuple(map(parse_reference, given.pop("maps"))),
        files=tuple(map(parse_reference, given.pop("files"))),
        prefixed=given.pop("prefix"),
    )
    if selection == Selection(prefixed=selection.prefixed):
        raise InputError("no secret is named", hint="--env production --service payments, --secret, --map or --file")
    named = [one.name for one in (*selection.maps, *selection.files)]
    if repeated := {name for name in named if named.count(name) > 1}:
        raise InputError(f"--map and --file give {', '.join(sorted(repeated))} more than once")
    _run(Wish(selection=selection, command=command, max_age_seconds=parse_age(max_age), **given))


def parse_age(text: str) -> float:
    """Read a duration such as 90s, 15m, 1h or 2d; raises InputError."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise InputError(f"{text[:20]!r} is not a duration", field="max-age", hint="such as 90s, 15m, 1h or 2d")
    return float(int(found[1]) * _UNITS[found[2] or "s"])


def _folders(environment: str | None, service: str | None) -> tuple[str, ...]:
    if environment is None and service is None:
        return ()
    if not environment or not service:
        raise InputError("--env and --service go together", hint="for example --env production --service payments")
    return (f"{environment}/{service.strip('/')}",)


def _run(wish: Wish) -> None:
    from keyturn.client import Keyturn

    number = wish.signal
    url, token = server_and_token()
    copy = None
    if wish.offline_copy is not None:
        from keyturn.delivery.offline import OfflineCopy

        copy = OfflineCopy(wish.offline_copy, token, url, wish.selection, wish.max_age_seconds)
    with Keyturn(url, token, timeout_seconds=TIMEOUT_SECONDS) as source:
        collected, cursor = _collect(source, wish, copy)
        run = _Run(wish, source, copy, number, {"KEYTURN_URL": url, "KEYTURN_TOKEN": token.reveal()})
        if wish.watch is None and not wish.mask and not wish.has_files:
            source.close()
            _become(wish.command, run.environment(collected))
        run.supervised(collected, cursor)


def _collect(source: Keyturn, wish: Wish, copy: OfflineCopy | None) -> tuple[Collected, str | None]:
    """Read everything, or the offline copy when there is no answer; with a cursor when it is to be watched."""
    try:
        named = names_of(source, wish.selection)
        # Before the reading, so that no change falls between.
        cursor = source.secret_news(paths_of(wish.selection, named)).cursor if wish.watch else None
        collected = collect(source, wish.selection, named)
    except UnavailableError as failure:
        if copy is None:
            raise
        collected, age = _offline(copy, failure)
        _say(f"{failure.message.rstrip('.')} [{failure.code}]; using the offline copy of {age:.0f} s ago")
        return collected, None
    if copy is not None:
        _save(copy, collected)
    return collected, cursor


def _save(copy: OfflineCopy, collected: Collected) -> None:
    """Renew the offline copy; that it cannot be written keeps no program from starting."""
    try:
        copy.save(collected)
    except ConfigError as error:
        _say(f"the offline copy was not renewed: {error.message}")


def _offline(copy: OfflineCopy, failure: UnavailableError) -> tuple[Collected, float]:
    try:
        return copy.load()
    except UnavailableError as refusal:
        message = f"{failure.message.rstrip('.')}, and {refusal.message}"
        raise UnavailableError(message, code=refusal.code) from failure


@dataclass(slots=True)
class _Run:
    """One supervised program and what it was given."""

    wish: Wish
    source: Keyturn
    copy: OfflineCopy | None
    number: signal.Signals | None
    ours: Mapping[str, str] = field(repr=False)
    folder: PrivateFolder | None = None
    writing: threading.Lock = field(default_factory=threading.Lock)

    def environment(self, collected: Collected) -> dict[str, str]:
        """Return the program's environment."""
        made = inherited_environment()
        if self.wish.clean_env:
            made = {name: value for name, value in made.items() if _KEPT.fullmatch(name)}
        if self.wish.pass_token:
            made.update(self.ours)
        if self.wish.folder is None:
            made.update(collected.variables())
        else:
            made.update(collected.mapped())
        if self.folder is not None:
            made[FOLDER_VARIABLE] = str(self.folder.path)
            made.update({name: str(self.folder.path / name) for name in collected.files()})
        return made

    def supervised(self, collected: Collected, cursor: str | None) -> None:
        """Start the program, stand by it, and end as it ended."""
        from keyturn.delivery.masking import patterns_of
        from keyturn.delivery.supervision import Supervisor, end_alike
        from keyturn.delivery.watching import Watcher

        supervisor = Supervisor(self.wish.command, grace_seconds=self.wish.grace_seconds)
        # Signals are held from before the folder is made, so that it goes whatever comes.
        with supervisor.hold_signals():
            try:
                self._open_folder()
                environment = self.environment(collected)
                self._write(collected)
                if self.wish.watch is not None:
                    tell = lambda fresh: supervisor.ask(self._changed(fresh))  # noqa: E731
                    Watcher(self.source, collected, cursor, tell=tell, report=_say, confirm=self._save).start()
                ending = supervisor.run(environment, patterns_of(collected.texts()) if self.wish.mask else None)
            finally:
                self._close_folder()
            end_alike(ending)

    def _changed(self, fresh: Collected) -> Restart | Notify:
        """Take over what is new: files and the offline copy, then the program."""
        from keyturn.delivery.masking import patterns_of
        from keyturn.delivery.supervision import Notify, Restart

        environment = self.environment(fresh)
        self._write(fresh)
        self._save(fresh)
        if self.number is not None:
            return Notify(self.number)
        _say("secrets have changed; restarting")
        return Restart(environment, patterns_of(fresh.texts()) if self.wish.mask else ())

    def _save(self, collected: Collected) -> None:
        if self.copy is not None:
            _save(self.copy, collected)

    def _open_folder(self) -> None:
        from keyturn.delivery.files import PrivateFolder, private_places

        if self.wish.folder is not None and self.wish.folder != "auto":
            self.folder = PrivateFolder.at(Path(self.wish.folder).absolute())
        elif self.wish.has_files:
            self.folder = PrivateFolder.make(private_places(inherited_environment().get("XDG_RUNTIME_DIR")))

    def _close_folder(self) -> None:
        # The watcher may be writing: it must not bring back what is removed here.
        with self.writing:
            folder, self.folder = self.folder, None
            if folder is not None:
                folder.close()

    def _write(self, collected: Collected) -> None:
        files = dict(collected.files())
        if self.wish.folder is not None:
            files.update({f"{name}/{one}": content for (name, one), content in collected.tree().items()})
        with self.writing:
            if self.folder is not None:
                self.folder.write(files)


def _become(command: Sequence[str], environment: Mapping[str, str]) -> None:
    from keyturn.delivery.supervision import NOT_EXECUTABLE, NOT_FOUND, become

    sys.stdout.flush()
    try:
        become(command, environment)
    except OSError as error:
        _say(f"{command[0]}: {os.strerror(error.errno or 0)}")
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise click.exceptions.Exit(NOT_FOUND if missing else NOT_EXECUTABLE) from None


def _say(text: str) -> None:
    click.echo(f"keyturn run: {text}", err=True)
