"""`keyturn scan`: finds leaked keys in files, in what git holds, and in what is piped in.  It needs no server.

Exit codes: 0 nothing to act on, 1 something to act on, 2 the scan failed or is not whole: an error is never a pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from keyturn.cli.scan_options import FORMATS, OPTIONS, Option, ScanOptions, Takes
from keyturn.cli.scanning import run

if TYPE_CHECKING:
    from collections.abc import Callable

_TYPES: Final[dict[Takes, click.ParamType[Any]]] = {
    Takes.TEXT: click.STRING,
    Takes.TEXTS: click.STRING,
    Takes.FILE: click.Path(dir_okay=False),
    Takes.FORMAT: click.Choice(FORMATS),
    Takes.NUMBER: click.INT,
    Takes.COUNT: click.IntRange(min=1),
}


def _with_options(command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(OPTIONS):
        command = _decorator(option)(command)
    return command


def _decorator(option: Option) -> Callable[[Callable[..., int]], Callable[..., int]]:
    default = getattr(ScanOptions(), option.attribute)
    if option.takes is Takes.NOTHING:
        flag = f"{option.name}/{option.off}" if option.off else option.name
        return click.option(flag, option.attribute, is_flag=True, default=default, help=option.help)
    return click.option(
        *([option.name, option.short] if option.short else [option.name]),
        option.attribute,
        type=_TYPES[option.takes],
        default=default,
        multiple=option.takes is Takes.TEXTS,
        metavar=option.metavar,
        help=option.help,
    )


@click.command()
@click.argument("paths", nargs=-1, type=click.Path())
@_with_options
def scan(**given: Any) -> int:  # noqa: ANN401 -- click checked the types
    """Find leaked keys in PATHS, by default here; `-` is standard input.

    A PATH can be a folder, a file, an archive or the tarball of an image; with --staged, --worktree, --range and
    --history it is a git repository.
    """
    return run(ScanOptions(**given))
