"""`keyturn leak-policies`: what is done by itself about a leak."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, json_option, table
from keyturn.cli.policy import if_match, limit_option, revision_option
from keyturn.cli.session import open_session

_ACTIONS: Final = ("notify", "rotate", "disable", "revoke")
_SCOPE: Final = ("origins", "certainties", "keyspaces", "secrets", "contexts", "environments", "paths")


def _emit(answer: Any, *, as_json: bool) -> None:  # noqa: ANN401 -- JSON
    emit(answer, as_json=as_json)


def _path(name: str, *rest: str) -> str:
    return "/".join(("/leak-policies", quote(name, safe=""), *rest))


@click.group("leak-policies", cls=Commands)
def leak_policies() -> None:
    """Say what is done by itself about a leak."""


def _scope_options(command: Any) -> Any:  # noqa: ANN401 -- a click command
    options = (
        click.option(
            "--origin",
            "origins",
            multiple=True,
            type=click.Choice(("scan", "partner", "possession")),
            help="Only what was told so; repeatable, as those below.",
        ),
        click.option(
            "--certainty",
            "certainties",
            multiple=True,
            type=click.Choice(("own", "held", "provider", "generic")),
            help="Only what is so sure.",
        ),
        click.option("--keyspace", "keyspaces", multiple=True, help="Only keys of keyspaces like this."),
        click.option("--secret", "secrets", multiple=True, help="Only held secrets with paths like this."),
        click.option("--context", "contexts", multiple=True, help="Only where it stands so, such as public or test."),
        click.option("--environment", "environments", multiple=True, help="Only of this environment."),
        click.option("--path", "paths", multiple=True, help="Only in files like this; * stands for anything."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _body(given: dict[str, Any]) -> dict[str, Any]:
    """Build a request; any part of the scope that is given takes the place of the whole scope."""
    scope = {name: list(given[name]) for name in _SCOPE if given[name]}
    body = {name: value for name, value in given.items() if name not in _SCOPE and value is not None}
    return body | ({"applies": scope} if scope else {})


@leak_policies.command()
@click.argument("name")
@click.argument("action", type=click.Choice(_ACTIONS))
@click.option("--position", type=click.IntRange(min=0), default=100, show_default=True, help="The lowest one counts.")
@_scope_options
@click.option(
    "--overlap-seconds", type=click.IntRange(min=0), help="How long a rotated key works on; a day without it."
)
@click.option("--after-seconds", type=click.IntRange(min=0), help="How long a person has to step in first.")
@json_option
def create(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- the options
    """Create a policy; an action other than notify needs --certainty own."""
    _emit(open_session().post("/leak-policies", _body(given), idempotency=True).json, as_json=as_json)


@leak_policies.command("list")
@limit_option
@json_option
def list_policies(*, limit: int | None, as_json: bool) -> None:
    """List policies in the order in which they count."""
    items = sorted(open_session().pages("/leak-policies", limit=limit), key=lambda one: (one["position"], one["name"]))
    columns = ("position", "name", "action", "applies", "after_seconds", "author")
    shown = [one | {"applies": {name: part for name, part in one["applies"].items() if part}} for one in items]
    emit({"items": items}, as_json=as_json, human=lambda _: table(shown, *columns))


@leak_policies.command()
@click.argument("name")
@json_option
def show(*, name: str, as_json: bool) -> None:
    """Show a policy."""
    _emit(open_session().get(_path(name)).json, as_json=as_json)


@leak_policies.command()
@click.argument("name")
@click.option("--action", type=click.Choice(_ACTIONS), help="What is done.")
@click.option("--position", type=click.IntRange(min=0), help="The lowest one counts.")
@_scope_options
@click.option("--overlap-seconds", type=click.IntRange(min=0), help="How long a rotated key works on.")
@click.option("--after-seconds", type=click.IntRange(min=0), help="How long a person has to step in first.")
@revision_option
@json_option
def update(*, name: str, revision: int | None, as_json: bool, **given: Any) -> None:  # noqa: ANN401 -- the options
    """Change a policy, which is yours from then on; a part of its scope takes the place of the whole."""
    answer = open_session().patch(_path(name), _body(given), if_match=if_match(revision))
    _emit(answer.json, as_json=as_json)


@leak_policies.command()
@click.argument("name")
@revision_option
@json_option
def delete(*, name: str, revision: int | None, as_json: bool) -> None:
    """Delete a policy; what is due by it is left to a person."""
    _emit(open_session().post(_path(name, "delete"), if_match=if_match(revision)).json, as_json=as_json)
