"""`keyturn template`: text with references to held secrets, filled in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from keyturn.cli.groups import Commands
from keyturn.cli.session import server_and_token
from keyturn.errors import InputError

if TYPE_CHECKING:
    from keyturn.client import Keyturn
    from keyturn.delivery.templates import Template

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Commands)
def template() -> None:
    """Fill held secrets into text."""


@template.command()
@click.argument("file", type=_FILE)
@click.option("--output", "-o", type=_FILE, help="Write this file, with mode 0600 and in one step, and not to stdout.")
@click.option("--check", is_flag=True, help="Only look whether it is understood and every field is there.")
@click.option("--watch", is_flag=True, help="With --output: write it again on every change, until interrupted.")
def render(*, file: Path, output: Path | None, check: bool, watch: bool) -> None:
    """Fill in `{{ secret "PATH" "FIELD" }}`, perhaps through `| json`, `| base64` or `| url`."""
    from keyturn.client import Keyturn
    from keyturn.delivery.templates import parse

    if watch and (output is None or check):
        raise InputError("--watch needs --output")
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputError(f"the file {str(file)!r} cannot be read: {error.strerror}") from None
    found = parse(content)
    url, token = server_and_token()
    with Keyturn(url, token) as source:
        if watch and output is not None and found.paths:
            _follow(source, found, output)
            return
        rendered = found.render({path: source.read_secret(path).fields for path in found.paths})
        if check:
            click.echo(f"{file}: {len(found.paths)} secrets, every field is there")
        else:
            _write(rendered, output)


def _write(rendered: bytes, output: Path | None) -> None:
    from keyturn.delivery.files import write_private

    if output is not None:
        write_private(output, rendered)
        return
    sys.stdout.buffer.write(rendered)
    sys.stdout.buffer.flush()


def _follow(source: Keyturn, found: Template, output: Path) -> None:
    from keyturn.delivery.selection import Collected, Selection, collect
    from keyturn.delivery.watching import Watcher

    def changed(fresh: Collected) -> None:
        rendered = found.render({path: value.fields for path, value in fresh.values.items()})
        _write(rendered, output)
        click.echo(f"wrote {output}", err=True)

    # Before the reading, so that no change falls between.
    cursor = source.secret_news(found.paths).cursor
    start = collect(source, Selection(paths=found.paths))
    changed(start)
    watcher = Watcher(source, start, cursor, tell=changed, report=lambda text: click.echo(text, err=True))
    try:
        watcher.run()
    except KeyboardInterrupt:
        watcher.stop()
