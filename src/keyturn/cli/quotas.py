"""`keyturn quotas`: balances of keys and owners, and the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from keyturn.cli.groups import Commands
from keyturn.cli.output import emit, fields, json_option, table
from keyturn.cli.policy import limit_option
from keyturn.cli.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_BALANCE: Final = ("quota", "subject", "period", "state", "granted", "spent", "leased", "stranded", "available")
_DATES: Final = ("starts_at", "ends_at", "refills_at")
_LINE: Final = ("number", "at", "kind", "units", "actor", "note")


def _holder(command: F) -> F:
    """Take `--key` or `--owner`."""
    of_key = click.option("--key", help="The id of a key.")
    of_owner = click.option("--owner", help="The name of an owner.")
    return of_key(of_owner(command))


def _named(key: str | None, owner: str | None) -> dict[str, str]:
    if (key is None) == (owner is None):
        message = "name either --key or --owner"
        raise click.UsageError(message)
    return {"key": key} if key is not None else {"owner": owner or ""}


def _show(balance: dict[str, Any], *, as_json: bool) -> None:
    emit(balance, as_json=as_json, human=lambda one: fields(one, *_BALANCE, "remaining", *_DATES))


@click.group(cls=Commands)
def quotas() -> None:
    """Look at balances, top them up, and credit what was stranded."""


@quotas.command("list")
@_holder
@json_option
def list_quotas(*, key: str | None, owner: str | None, as_json: bool) -> None:
    """List the balances of a key or an owner."""
    found = open_session().get("/quotas", _named(key, owner)).json
    emit(found, as_json=as_json, human=lambda one: table(one["items"], *_BALANCE))


@quotas.command()
@click.argument("quota")
@_holder
@click.option("--period", help="Another one than the present, such as 2026-03, 2026-W13 or 2026-03-29.")
@limit_option
@json_option
def ledger(
    *, quota: str, key: str | None, owner: str | None, period: str | None, limit: int | None, as_json: bool
) -> None:
    """Show what happened to a balance, the latest first."""
    asked = {**_named(key, owner), "quota": quota, "period": period}
    items = list(open_session().pages("/quotas/ledger", asked, limit=limit))
    emit({"items": items}, as_json=as_json, human=lambda one: table(one["items"], *_LINE))


@quotas.command("top-up")
@click.argument("quota")
@click.argument("units", type=int)
@_holder
@click.option("--note", default="", help="Why; needed to take units.")
@json_option
def top_up(*, quota: str, units: int, key: str | None, owner: str | None, note: str, as_json: bool) -> None:
    """Add units to a balance; write `-- -5` to take five."""
    body = {**_named(key, owner), "quota": quota, "units": units, "note": note}
    _show(open_session().post("/quotas/top-up", body, idempotency=True).json, as_json=as_json)


@quotas.command()
@click.argument("quota")
@_holder
@click.option("--units", type=click.IntRange(min=1), help="How many; all that are stranded by default.")
@click.option("--note", default="", help="Why.")
@json_option
def credit(*, quota: str, units: int | None, key: str | None, owner: str | None, note: str, as_json: bool) -> None:
    """Make stranded units available again: you decide that they were not spent."""
    body: dict[str, Any] = {**_named(key, owner), "quota": quota, "note": note}
    if units is not None:
        body["units"] = units
    _show(open_session().post("/quotas/credit", body, idempotency=True).json, as_json=as_json)


@quotas.command("set")
@click.argument("quota")
@click.argument("units", type=click.IntRange(min=0))
@_holder
@click.option("--note", default="", help="Why.")
@json_option
def set_quota(*, quota: str, units: int, key: str | None, owner: str | None, note: str, as_json: bool) -> None:
    """Set what is left of a balance."""
    body = {**_named(key, owner), "quota": quota, "units": units, "note": note}
    _show(open_session().post("/quotas/set", body, idempotency=True).json, as_json=as_json)
