"""What `keyturn scan` is given, made into a source, settings and what is done with the findings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.config import inherited_environment
from keyturn.errors import ConfigError, InputError
from keyturn.kernel.clock import Clock
from keyturn.kernel.secret import random_base62
from keyturn.scanner.fingerprints import Fingerprints
from keyturn.scanner.judging import BY_BASELINE, Judges
from keyturn.scanner.model import Context
from keyturn.scanner.policy import Policy, default_policy, read_policy
from keyturn.scanner.running import ScanSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyturn.cli.scan_options import ScanOptions
    from keyturn.cli.scan_server import Server
    from keyturn.scanner.baseline import Baseline
    from keyturn.scanner.cache import Cache
    from keyturn.scanner.engine.detect import Engine
    from keyturn.scanner.model import Report, Source
    from keyturn.scanner.ruleset.model import Ruleset

FOLDER: Final = ".keyturn"
POLICY_NAME: Final = "leaks.toml"
BASELINE_NAME: Final = "baseline.toml"
_KEY_BYTES_MIN: Final = 16


class Prepared(msgspec.Struct, frozen=True):
    """A scan that can be run; `known` is told the report, when a server or the next run wants to know."""

    source: Source
    engine: Engine
    settings: ScanSettings
    baseline: Baseline | None
    options: ScanOptions
    known: Callable[[Report], None] | None = None

    def close(self) -> None:
        """End what the source started."""
        close: Callable[[], None] | None = getattr(self.source, "close", None)
        if close is not None:
            close()

    def write_baseline(self, report: Report) -> None:
        """Write what was found, and what the old baseline judged and was found again, as the baseline."""
        from keyturn.scanner.baseline import new_baseline, updated, write_baseline

        name = self.options.write_baseline
        if name is not None:
            judged = [one for one in report.ignored if one.verdict == BY_BASELINE]
            fresh = updated(self.baseline or new_baseline(), [*report.findings, *judged])
            if Path(name).parent.name == FOLDER:  # where it is read from by itself, and nobody had to make it
                _make_folder(Path(name).parent)
            write_whole(name, write_baseline(fresh))
            print(f"wrote {len(fresh.findings)} findings to {name}", file=sys.stderr)


def prepare(options: ScanOptions) -> Prepared:
    """Read everything that a scan needs; raises InputError that names what is wrong."""
    from keyturn.cli.scan_sources import choose_source
    from keyturn.scanner.engine.open import open_engine

    cache = _cache() if options.cache else None
    baseline = _baseline(options)
    server = _server(options) if options.connect or options.source is not None else None
    judges = Judges(
        policy=_policy(options),
        today=Clock().now_utc().date(),
        fingerprints=_fingerprints(options, baseline),
        baseline=baseline,
        contexts=_contexts(options),
        owners=None if server is None else server.asked,
    )
    engine = open_engine(_ruleset(options), cache=cache)
    if options.held:
        from keyturn.scanner.words import WordEngine

        engine = WordEngine(engine)
    chosen = choose_source(options, cache, engine.ruleset)
    settings = ScanSettings(judges=judges, jobs=chosen.jobs or options.jobs, whole=chosen.whole, scanned=chosen.scanned)
    return Prepared(chosen.source, engine, settings, baseline, options, None if server is None else server.known)


def _server(options: ScanOptions) -> Server:
    from keyturn.cli.scan_server import Server

    return Server.of(options)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {str(folder)!r} cannot be made: {error.strerror}", field=str(folder)) from None


def write_whole(name: str, text: str, *, private: bool = False) -> None:
    """Write a file in one step, so that nobody ever sees half of it; raises InputError when that is not possible."""
    path = Path(name)
    if path.exists() and not path.is_file():
        path.write_bytes(text.encode("utf-8", "backslashreplace"))  # a pipe or a device has no halves
        return
    fresh = path.with_name(f".{path.name}.{random_base62(8)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"the file {name!r} cannot be written: {error.strerror}", field=name) from None


def root_of(options: ScanOptions) -> Path:
    """Return the folder whose `.keyturn` counts: the top of the repository that is scanned, or what is scanned."""
    start = _start(options)
    for folder in (start.absolute(), *start.absolute().parents):
        if (folder / FOLDER).is_dir() or (folder / ".git").exists():
            return folder
    return start


def _start(options: ScanOptions) -> Path:
    given = Path(options.paths[0]) if options.paths and options.paths[0] != "-" else Path()
    return given if given.is_dir() else given.parent


def _setting(given: str | None, options: ScanOptions, name: str) -> Path | None:
    if given is not None:
        return Path(given)
    root = root_of(options)
    found = root / FOLDER / name
    if not found.is_file():
        return None
    if hasattr(os, "geteuid") and found.stat().st_uid not in {os.geteuid(), 0, _start(options).stat().st_uid}:
        # Anybody may put a folder into a folder above that is everybody's, such as /tmp.
        raise InputError(
            f"{found} belongs to another user, and would say what may pass",
            field=str(found),
            hint="name the file that counts by --policy or --baseline, or take its ownership",
        )
    return found


def judged_by(options: ScanOptions) -> list[str]:
    """Return the files that say what may stand where and what was judged before: what they let pass is no accident."""
    baseline = options.write_baseline or options.baseline
    found = (_setting(options.policy, options, POLICY_NAME), _setting(baseline, options, BASELINE_NAME))
    return [str(path) for path in found if path is not None]


def _policy(options: ScanOptions) -> Policy:
    path = _setting(options.policy, options, POLICY_NAME)
    return default_policy() if path is None else read_policy(_read(path).decode("utf-8", "replace"), str(path))


def _baseline(options: ScanOptions) -> Baseline | None:
    if options.write_baseline is not None:
        from keyturn.scanner.baseline import new_baseline

        path: Path | None = Path(options.write_baseline)
        if not Path(options.write_baseline).exists():
            return new_baseline()
    else:
        path = _setting(options.baseline, options, BASELINE_NAME)
    if path is None:
        return None
    from keyturn.scanner.baseline import read_baseline

    return read_baseline(_read(path).decode("utf-8", "replace"), str(path))


def _fingerprints(options: ScanOptions, baseline: Baseline | None) -> Fingerprints:
    key = b""
    if options.fingerprint_key_file is not None:
        key = _read(Path(options.fingerprint_key_file)).strip()
        if len(key) < _KEY_BYTES_MIN:
            message = f"expected a key of at least {_KEY_BYTES_MIN} bytes, found {len(key)}"
            raise InputError(message, field="--fingerprint-key-file")
    return Fingerprints(b"" if baseline is None else bytes.fromhex(baseline.salt), key)


def _ruleset(options: ScanOptions) -> Ruleset | None:
    if not options.rules:
        return None
    from keyturn.scanner.ruleset.given import SHIPPED, given_ruleset

    if options.rules == (SHIPPED,):
        return None
    default = options.gitleaks_default
    return given_ruleset(options.rules, gitleaks_default=None if default is None else Path(default))


def _contexts(options: ScanOptions) -> frozenset[Context]:
    named = {
        Context.STAGED: options.staged,
        Context.HISTORY: options.history or options.commits is not None,
        Context.CI_LOG: options.log,
        Context.PUBLIC: options.public,
    }
    return frozenset(context for context, given in named.items() if given)


def _cache() -> Cache | None:
    from keyturn.scanner.cache import Cache, default_folder

    try:
        return Cache(default_folder(inherited_environment()))
    except ConfigError as error:
        print(f"note: scanning without a cache: {error.message}", file=sys.stderr)
        return None


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise InputError(f"the file {str(path)!r} cannot be read: {error.strerror}", field=str(path)) from None
