"""Output: for people by default, one JSON document with `--json`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

F = TypeVar("F", bound="Callable[..., Any]")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
"""Decorator: the command gets a keyword argument `as_json`."""


def emit(value: Any, *, as_json: bool, human: Callable[[Any], str] | None = None) -> None:  # noqa: ANN401 -- JSON
    """Print a document from the server, as JSON or by `human` (by default one `name: value` line each)."""
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo((human or fields)(value))


def fields(value: dict[str, Any], *names: str) -> str:
    """Lay a document out as `name: value` lines; nested values as compact JSON, absent ones left out."""
    shown = [(name, value.get(name)) for name in (names or value)]
    width = max((len(name) for name, item in shown if item is not None), default=0)
    return "\n".join(f"{name + ':':<{width + 1}} {cell(item)}" for name, item in shown if item is not None)


def table(rows: Iterable[dict[str, Any]], *names: str) -> str:
    """Lay documents out as aligned columns; says so when there are none."""
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    if not cells:
        return "(none)"
    heading = [name.upper() for name in names]
    widths = [max(len(row[i]) for row in [heading, *cells]) for i in range(len(names))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [heading, *cells])
    return "\n".join(line.rstrip() for line in lines)


def cell(value: Any) -> str:  # noqa: ANN401 -- JSON
    """One value on one line, with nothing in it that a terminal would obey."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
