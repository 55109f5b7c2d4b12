"""What `keyturn hooks run pre-push` and `pre-receive` do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keyturn.cli.scan_options import ScanOptions
from keyturn.cli.scanning import CLEAN, FAILED, FOUND, exit_code, show
from keyturn.config import inherited_environment
from keyturn.errors import ConfigError, InputError
from keyturn.kernel.clock import Clock, rfc3339
from keyturn.scanner.fingerprints import Fingerprints
from keyturn.scanner.hooks.bypass import Bypass, push_options, pusher_of, read_bypass, record
from keyturn.scanner.hooks.pushing import new_names, new_objects, read_pushed, read_received
from keyturn.scanner.judging import Judges
from keyturn.scanner.model import Context, Report
from keyturn.scanner.policy import default_policy, read_policy
from keyturn.scanner.running import ScanSettings, errors_of, scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyturn.scanner.baseline import Baseline
    from keyturn.scanner.model import Finding, Source
    from keyturn.scanner.ruleset.model import Ruleset
    from keyturn.scanner.sources.repository import Repository

_NOT_SET: Final = 1
"""What git-config(1) ends with when there is no such setting."""
BYPASS_MODES: Final = ("reason", "never")
BOUND_MODES: Final = ("refuse", "pass")
_REMOTE: Final = re.compile(r"[A-Za-z0-9._/-]+").fullmatch


def received(given: str) -> int:
    """Judge what a push brings to this server; the repository's own settings, `keyturn.*`, say how.

    Nothing that the push brings is trusted: comments in it allow nothing, and policy and baseline are files of the
    server, named by `keyturn.policy` and `keyturn.baseline`.
    """
    changes = read_received(given)
    new = new_objects(changes)
    if not new:
        return CLEAN
    environment = inherited_environment()
    from keyturn.scanner.sources.git import PushSource, open_repository

    repository = open_repository(".", environment)
    try:
        settings = _Settings(repository)
        report = _scanned(PushSource(repository, new, refs=new_names(changes)), settings, environment)
        bypass = read_bypass(push_options(environment))
        blocked = [one for one in report.findings if one.verdict == "block"]
        left = [one for one in blocked if not settings.bypass or one.fingerprint not in bypass.fingerprints]
        errors = errors_of(report, strict=settings.strict)
        if left or errors:
            _refuse(report, left, settings, bypass)
            return FOUND if left else FAILED
        if blocked:
            allowed = {one.fingerprint for one in blocked}
            at = rfc3339(Clock().now())
            record(Path(repository.common), bypass, allowed, pusher=pusher_of(environment), at=at, changes=changes)
            click.echo(f"keyturn: {len(allowed)} findings were let through, on record: {bypass.reason}", err=True)
        return CLEAN
    finally:
        repository.close()


def sent(given: str, arguments: tuple[str, ...]) -> int:
    """Judge what a push would publish, by the policy and baseline of the work tree."""
    from keyturn.cli.scan_setup import judged_by, prepare
    from keyturn.scanner.sources.git import PushSource, open_repository

    changes = read_pushed(given)
    new = new_objects(changes)
    if not new:
        return CLEAN
    remote = arguments[0] if arguments else ""
    known = f"--remotes={remote}" if _REMOTE(remote) else "--remotes"
    repository = open_repository(".", inherited_environment())
    try:
        prepared = prepare(ScanOptions())
        source = PushSource(repository, new, known=(known,), refs=new_names(changes))
        report = scan(source, prepared.engine, prepared.settings)
    finally:
        repository.close()
    if not report.findings and not errors_of(report):
        return CLEAN
    report.judged_by = judged_by(ScanOptions())
    show(report, ScanOptions())
    return exit_code(report)


class _Settings:
    """What the settings of a repository on a server say; whoever pushes cannot change them."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.bypass = self._chosen("keyturn.bypass", BYPASS_MODES) == "reason"
        self.strict = self._chosen("keyturn.bounds", BOUND_MODES) == "refuse"
        self.rules = tuple(self._all("keyturn.rules"))
        self.cache = self._one("keyturn.cache")
        policy, baseline = self._one("keyturn.policy"), self._one("keyturn.baseline")
        self.policy = default_policy() if not policy else read_policy(_read(policy), policy)
        self.baseline: Baseline | None = None
        if baseline:
            from keyturn.scanner.baseline import read_baseline

            self.baseline = read_baseline(_read(baseline), baseline)

    def _all(self, name: str) -> list[str]:
        # A file that is named is read as it is: no includes, and nothing in it is run.
        file = str(Path(self._repository.common) / "config")
        command = [self._repository.git, "config", "--file", file, "--get-all", name]
        found = subprocess.run(command, check=False, capture_output=True, text=True, errors="surrogateescape")
        if found.returncode not in {0, _NOT_SET}:
            raise ConfigError(f"the settings of the repository cannot be read: {file}", field=name)
        return [line for line in found.stdout.splitlines() if line]

    def _chosen(self, name: str, choices: tuple[str, ...]) -> str:
        """Return what a setting says, by default the first choice; raises InputError for anything else."""
        found = self._one(name) or choices[0]
        if found not in choices:
            raise InputError(f"{name} is {found!r}; expected {' or '.join(choices)}", field=name)
        return found

    def _one(self, name: str) -> str:
        found = self._all(name)
        return found[-1] if found else ""


def _scanned(source: Source, settings: _Settings, environment: Mapping[str, str]) -> Report:
    from keyturn.scanner.cache import Cache, default_folder
    from keyturn.scanner.engine.open import open_engine

    try:
        cache = Cache(Path(settings.cache) if settings.cache else default_folder(environment))
    except ConfigError:
        cache = None
    baseline = settings.baseline
    judges = Judges(
        policy=settings.policy,
        today=Clock().now_utc().date(),
        fingerprints=Fingerprints(b"" if baseline is None else bytes.fromhex(baseline.salt)),
        baseline=baseline,
        comments=False,
        contexts=frozenset({Context.HISTORY}),
    )
    engine = open_engine(_ruleset(settings), cache=cache)
    return scan(source, engine, ScanSettings(judges=judges, progress=False))


def _ruleset(settings: _Settings) -> Ruleset | None:
    if not settings.rules:
        return None
    from keyturn.scanner.ruleset.given import given_ruleset

    return given_ruleset(settings.rules, gitleaks_default=None)


def _refuse(report: Report, left: list[Finding], settings: _Settings, bypass: Bypass) -> None:
    from keyturn.scanner.reporting import render
    from keyturn.scanner.reporting.options import Options

    shown = Report(findings=left, notices=report.notices, documents=report.documents, bytes=report.bytes)
    click.echo("keyturn: the push is refused; nothing of it was accepted.\n", err=True)
    click.echo(render(shown, "text", Options(reveal=False, strict=settings.strict, color=False)), err=True)
    if left and settings.bypass:
        asked = " ".join(f"-o keyturn.allow={one}" for one in sorted({one.fingerprint for one in left})[:8])
        click.echo(f"If they are no secrets: git push {asked} -o keyturn.reason='…'", err=True)
        click.echo("That is put on record, with who pushed and why.", err=True)
    if bypass.fingerprints and not settings.bypass:
        click.echo("This repository lets nothing through (keyturn.bypass is never).", err=True)


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError as error:
        raise InputError(f"the file {path!r} cannot be read: {error.strerror}", field=path) from None
