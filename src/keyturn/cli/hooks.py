"""`keyturn hooks`: git hooks that stop leaked keys, installed and run.

    pre-commit     keyturn scan --staged
    pre-push       what no ref of the remote leads to yet
    pre-receive    on a server: what no ref leads to yet; see `keyturn.scanner.hooks`

A hook that cannot do its work refuses: an error is never a pass.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import cell
from keyturn.cli.scanning import FAILED
from keyturn.errors import InputError, KeyturnError
from keyturn.scanner.hooks.installation import Hook, install, uninstall

_HOOK = click.argument("hook", type=click.Choice([hook.value for hook in Hook]))
_REPOSITORY = click.option(
    "--repository", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where; by default here."
)


@click.group(cls=Commands)
def hooks() -> None:
    """Stop leaked keys in git: before a commit, before a push, and on a server."""


@hooks.command("install")
@_HOOK
@_REPOSITORY
def install_hook(*, hook: str, repository: Path) -> None:
    """Install a hook; one that is there runs first."""
    installed = install(_folder_of(repository), Hook(hook), _command(Hook(hook)))
    click.echo(f"installed {installed.path}")
    if installed.local is not None:
        click.echo(f"{installed.local} runs before it")


@hooks.command("uninstall")
@_HOOK
@_REPOSITORY
def uninstall_hook(*, hook: str, repository: Path) -> None:
    """Take a hook out again, and put back what was there."""
    done = uninstall(_folder_of(repository), Hook(hook))
    click.echo(f"{hook} was taken out" if done else f"there is no {hook} of ours")


@hooks.command("run", context_settings={"ignore_unknown_options": True})
@click.argument("hook", type=click.Choice([Hook.PRE_PUSH.value, Hook.PRE_RECEIVE.value]))
@click.argument("arguments", nargs=-1)
def run_hook(*, hook: str, arguments: tuple[str, ...]) -> int:
    """Do what a hook is installed for; git calls it with ARGUMENTS and the refs on stdin."""
    from keyturn.cli.pushes import received, sent

    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")  # a ref is named by any bytes
    try:
        return received(given) if hook == Hook.PRE_RECEIVE else sent(given, arguments)
    except KeyturnError as error:
        from keyturn.cli.failure import print_failure

        print_failure(error)
        click.echo(f"hint: keyturn refused because it could not look; nothing was decided about {cell(hook)}", err=True)
        return FAILED


def _folder_of(repository: Path) -> Path:
    command = ["git", "-C", str(repository), "rev-parse", "--path-format=absolute", "--git-path", "hooks"]
    try:
        found = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"git cannot be run: {error.strerror}", hint="install git") from None
    if found.returncode or not found.stdout.strip():
        raise InputError(f"{repository} is no git repository", field="--repository")
    return Path(found.stdout.strip())


def _command(hook: Hook) -> list[str]:
    # -P: a module of the folder that is scanned, where git runs hooks, is never imported.
    program = [sys.executable, "-P", "-m", "keyturn"]
    return [*program, "scan", "--staged"] if hook is Hook.PRE_COMMIT else [*program, "hooks", "run", hook.value]
