"""`keyturn usage`: how often keys are used, by whom, and what is not known of it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import cell, emit, fields, json_option, table
from keyturn.cli.session import open_session
from keyturn.wire.usage import Dimension, Period

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

_BARS: Final = "▁▂▃▄▅▆▇█"
_CELLS_MAX: Final = 60
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86_400}
_FILTERS: Final = (
    ("key", "Only this key."),
    ("version", "Only this secret version."),
    ("owner", "Only keys of this owner."),
    ("keyspace", "Only this keyspace."),
    ("outcome", "Only this verdict, such as VALID."),
    ("endpoint", "Only this endpoint, such as 'GET /orders'."),
    ("country", "Only this country, two capital letters."),
)
_DIMENSIONS: Final = click.Choice([str(one) for one in Dimension])


def _filters(command: F) -> F:
    for name, text in reversed(_FILTERS):
        command = click.option(f"--{name}", help=text)(command)
    return command


def _window(command: F) -> F:
    command = click.option("--until", metavar="TIME", help="RFC 3339; now by default.")(command)
    return click.option("--since", metavar="TIME", help="RFC 3339.")(command)


_period = click.option(
    "--period", type=click.Choice([str(one) for one in Period]), default="hour", show_default=True, help="A bucket."
)


@click.group(cls=Commands)
def usage() -> None:
    """Show how keys are used."""


@usage.command()
@_filters
@_period
@_window
@click.option("--group-by", type=_DIMENSIONS, help="One line for each of these values.")
@json_option
def series(*, as_json: bool, **asked: str | None) -> None:
    """Show how often keys were verified, bucket by bucket."""
    emit(open_session().get("/usage", asked).json, as_json=as_json, human=_series)


@usage.command()
@click.argument("dimension", type=_DIMENSIONS)
@_filters
@_window
@click.option("--limit", "n", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@json_option
def top(*, as_json: bool, **asked: str | int | None) -> None:
    """Show the most used keys, owners, endpoints or the like; of the last day by default."""
    emit(open_session().get("/usage/top", asked).json, as_json=as_json, human=_top)


@usage.command()
@click.argument("key_id")
@_period
@json_option
def show(*, key_id: str, period: str, as_json: bool) -> None:
    """Show how a key is used, and by whom each of its secrets was used last."""
    session = open_session()
    found = session.get("/usage", {"key": key_id, "period": period, "group_by": "version"}).json
    found["last_used"] = session.get("/usage/last-used", {"key": key_id}).json["items"]
    found["endpoints"] = session.get("/usage/top", {"key": key_id, "dimension": "endpoint"}).json["items"]
    emit(found, as_json=as_json, human=_shown)


@usage.command()
@json_option
def losses(*, as_json: bool) -> None:
    """Show what nodes had counted and not written when they were killed."""
    answer = open_session().get("/usage/losses").json

    def human(found: Any) -> str:  # noqa: ANN401 -- JSON
        return f"{table(found['items'], 'node', 'at', 'counted', 'written', 'lost')}\n\nlost: {found['lost']}"

    emit(answer, as_json=as_json, human=human)


def _series(found: Any) -> str:  # noqa: ANN401 -- JSON
    starts = _starts(found)
    groups: defaultdict[str | None, dict[str, int]] = defaultdict(dict)
    for point in found["items"]:
        groups[point.get("group")][point["start"]] = point["count"]
    lines = [f"{found['period']} from {found['since']} until {found['until']}"]
    width = max((len(cell(group)) for group in groups), default=0)
    for group, counts in sorted(groups.items(), key=lambda one: -sum(one[1].values())):
        name = "" if found["group_by"] is None else f"{cell(group):<{width}}  "
        lines.append(f"{name}{_sparkline([counts.get(start, 0) for start in starts])}  {sum(counts.values())}")
    if not groups:
        lines.append("(none)")
    lines.append(_totals(found["totals"]))
    if found["shadow"]:
        lines.append(_totals(found["shadow"]))
    if found["truncated"]:
        lines.append("(cut off; ask for a shorter range or a longer period)")
    return "\n".join(line for line in lines if line)


def _top(found: Any) -> str:  # noqa: ANN401 -- JSON
    total = found["total"] or 1
    rows = [
        {found["dimension"]: one["value"], "count": one["count"], "share": f"{100 * one['count'] / total:.1f} %"}
        for one in found["items"]
    ]
    listed = table(rows, found["dimension"], "count", "share")
    return f"{listed}\n\ntotal: {found['total']}, from {found['since']} until {found['until']}"


def _shown(found: Any) -> str:  # noqa: ANN401 -- JSON
    return "\n\n".join(
        (
            _series(found),
            table(found["endpoints"], "value", "count"),
            table(found["last_used"], "version_id", "at", "ip_network", "user_agent", "endpoint"),
        )
    )


def _totals(totals: Mapping[str, int]) -> str:
    return fields(dict(totals)) if totals else ""


def _starts(found: Mapping[str, Any]) -> list[str]:
    """Name every bucket of the range; those without any use are not in the answer."""
    length = timedelta(seconds=_SECONDS[found["period"]])
    at, until = _moment(found["since"]), _moment(found["until"])
    named: list[str] = []
    while at < until:
        named.append(at.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
        at += length
    return named


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _sparkline(counts: list[int]) -> str:
    """Draw counts as bars, neighbours added up until they fit on a line; a dot is none."""
    together = -(-len(counts) // _CELLS_MAX) or 1
    cells = [sum(counts[first : first + together]) for first in range(0, len(counts), together)]
    highest = max(cells, default=0)
    return "".join("·" if not one else _BARS[(one * len(_BARS) - 1) // highest] for one in cells)
