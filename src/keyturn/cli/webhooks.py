"""`keyturn webhooks`: endpoints that events are sent to, and their deliveries."""

from __future__ import annotations

import time
from typing import Any, Final
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import Session, open_session

TEST_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.2
_STATES = ("pending", "delivered", "dead", "cancelled")


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json)


def _path(name: str, *rest: str) -> str:
    return "/".join(("/webhooks", *(quote(part, safe="") for part in (name, *rest))))


@click.group(cls=Commands)
def webhooks() -> None:
    """Send events to endpoints, and look after their deliveries."""


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option("--event", "events", multiple=True, help="A pattern over event types, such as 'key.*'; repeatable.")
@click.option("--description", default="", help="What it is for.")
@json_option
def create(*, name: str, url: str, events: tuple[str, ...], description: str, as_json: bool) -> None:
    """Create an endpoint and show its secret once; without --event it gets every event."""
    body: dict[str, Any] = {"name": name, "url": url, "description": description}
    if events:
        body["events"] = events
    _emit(open_session().post("/webhooks", body, idempotency=True).json, as_json=as_json)


@webhooks.command("list")
@limit_option
@json_option
def list_webhooks(*, limit: int | None, as_json: bool) -> None:
    """List endpoints."""
    items = list(open_session().pages("/webhooks", limit=limit))
    columns = ("name", "url", "events", "state", "state_reason", "failing_since")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@webhooks.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show an endpoint."""
    _emit(open_session().get(_path(name)).json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@click.option("--url", help="Where events are sent from now on.")
@click.option("--event", "events", multiple=True, help="A pattern over event types; takes the place of all before.")
@click.option("--description", help="What it is for.")
@revision_option
@json_option
def update(
    *,
    name: str,
    url: str | None,
    events: tuple[str, ...],
    description: str | None,
    revision: int | None,
    as_json: bool,
) -> None:
    """Change an endpoint."""
    given = {"url": url, "events": events or None, "description": description}
    body = {field: value for field, value in given.items() if value is not None}
    _emit(open_session().patch(_path(name), body, if_match=if_match(revision)).json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@revision_option
@json_option
def disable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Send nothing to an endpoint; what happens meanwhile becomes dead letters."""
    _emit(open_session().post(_path(name, "disable"), if_match=if_match(revision)).json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@revision_option
@json_option
def enable(*, name: str, revision: int | None, as_json: bool) -> None:
    """Send to a disabled endpoint again."""
    _emit(open_session().post(_path(name, "enable"), if_match=if_match(revision)).json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@revision_option
@json_option
def delete(*, name: str, revision: int | None, as_json: bool) -> None:
    """Delete an endpoint for good."""
    _emit(open_session().post(_path(name, "delete"), if_match=if_match(revision)).json, as_json=as_json)


@webhooks.command("rotate-secret")
@click.argument("name")
@click.option("--overlap-seconds", type=click.IntRange(min=0), help="Sign with both for so long; a day without it.")
@revision_option
@json_option
def rotate_secret(*, name: str, overlap_seconds: int | None, revision: int | None, as_json: bool) -> None:
    """Make a new secret and show it once."""
    body = {} if overlap_seconds is None else {"overlap_seconds": overlap_seconds}
    answer = open_session().post(_path(name, "rotate-secret"), body, idempotency=True, if_match=if_match(revision))
    _emit(answer.json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@json_option
@click.pass_context
def test(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Send a ping and say what came of it; exit code 1 when it was not delivered."""
    session = open_session()
    sent = session.post(_path(name, "test")).json
    found = _outcome(session, name, sent["id"])
    shown = ("id", "state", "attempts", "last_status", "last_error")
    emit(found, as_json=as_json, human=lambda a: fields(a, *shown))
    ctx.exit(0 if found["state"] == "delivered" else 1)


@webhooks.command()
@click.argument("name")
@click.option("--state", type=click.Choice(_STATES), help="Only those that stand so.")
@click.option("--type", "event_type", help="Only this type of event.")
@click.option("--since", metavar="TIME", help="Events at or after this time, as 2026-01-02T03:04:05Z.")
@click.option("--until", metavar="TIME", help="Events before this time.")
@limit_option
@json_option
def deliveries(
    *,
    name: str,
    state: str | None,
    event_type: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the deliveries of an endpoint, newest first."""
    given = {"state": state, "type": event_type, "since": since, "until": until}
    items = list(open_session().pages(_path(name, "deliveries"), given, limit=limit))
    columns = ("id", "type", "state", "attempts", "last_status", "last_error", "next_attempt_at", "created_at")
    emit({"items": items}, as_json=as_json, human=lambda a: table(a["items"], *columns))


@webhooks.command()
@click.argument("name")
@click.argument("delivery_id")
@json_option
def delivery(*, name: str, delivery_id: str, as_json: bool) -> None:
    """Show a delivery, its body and its attempts."""
    _emit(open_session().get(_path(name, "deliveries", delivery_id)).json, as_json=as_json)


@webhooks.command()
@click.argument("name")
@click.argument("delivery_id", required=False)
@click.option("--since", metavar="TIME", help="All dead letters whose event happened at or after this time.")
@json_option
def redeliver(*, name: str, delivery_id: str | None, since: str | None, as_json: bool) -> None:
    """Send one delivery again, or all dead letters since a time."""
    if (delivery_id is None) == (since is None):
        message = "give either the id of a delivery or --since"
        raise click.UsageError(message)
    session = open_session()
    if delivery_id is not None:
        answer = session.post(_path(name, "deliveries", delivery_id, "redeliver")).json
    else:
        answer = session.post(_path(name, "redeliver"), {"since": since}).json
    _emit(answer, as_json=as_json)


def _outcome(session: Session, name: str, delivery_id: str) -> Any:  # noqa: ANN401 -- JSON
    """Wait until the first attempt has ended."""
    looks = int(TEST_SECONDS / _LOOK_SECONDS)
    for _ in range(looks):
        found = session.get(_path(name, "deliveries", delivery_id)).json
        if found["state"] != "pending" or found["attempt_log"]:
            return found
        time.sleep(_LOOK_SECONDS)
    return found
