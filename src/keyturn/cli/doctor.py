"""`keyturn doctor`: look for faults in the set-up and name the cause and what to do next."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from keyturn.cli.failure import NO
from keyturn.cli.output import cell, emit, json_option
from keyturn.cli.profiles import read_profile
from keyturn.cli.session import Session
from keyturn.config import load_settings
from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from keyturn.bootstrap.diagnosis import Finding
    from keyturn.config import Settings
    from keyturn.kernel.secret import Secret

ANSWER_SECONDS = 5.0


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Look for faults in the settings, the files, the database and the server, and say what to do next.

    Run it where the server runs, with its settings; KEYTURN_URL names the server to ask.
    Nothing is changed.
    The exit code is 1 when there is a fault.
    """
    found = _look()
    ok = not any(one.state == "fault" for one in found)
    emit({"ok": ok, "checks": [asdict(one) for one in found]}, as_json=as_json, human=_text)
    return 0 if ok else NO


def _look() -> list[Finding]:
    from keyturn.bootstrap.diagnosis import Finding, fault, look

    try:
        settings = load_settings()
        settings.asyncpg_url  # noqa: B018 -- parsed on first use
    except KeyturnError as error:
        return [fault("settings", error)]
    found = [Finding("settings", "ok", "every setting is understood"), *look(settings)]
    try:
        url, token = _server(settings)
    except KeyturnError as error:
        return [*found, fault("server", error)]
    server = _ready(url)
    found.append(server)
    if server.state != "fault" or "answers" in server.detail:
        found.append(_token(url, token))
    return found


def _server(settings: Settings) -> tuple[str, Secret | None]:
    profile = None if settings.token is not None else read_profile(settings.profile or "default")
    return (settings.url, settings.token) if profile is None else (profile.url, profile.token)


def _ready(url: str) -> Finding:
    import httpx

    from keyturn.bootstrap.diagnosis import Finding

    try:
        response = httpx.get(f"{url}/health/ready", timeout=ANSWER_SECONDS)
        checks = [one for one in response.json()["checks"] if not one["ok"]]
        failing = [f"{one['name']}: {one.get('detail', 'failing')}" for one in checks]
        required = any(one.get("required", True) for one in checks)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        said = f"no answer from {url} ({type(error).__name__})"
        return Finding("server", "fault", said, "start it with `keyturn serve`, or set KEYTURN_URL")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding("server", "fault", f"what is at {url} is not Keyturn", "set KEYTURN_URL")
    if required:
        said = f"{url} answers and is not ready: {'; '.join(failing)}"
        return Finding("server", "fault", said, "see docs/operations/troubleshooting.md")
    if failing:
        said = f"{url} is ready, but: {'; '.join(failing)}"
        return Finding("server", "warn", said, "see docs/operations/troubleshooting.md")
    return Finding("server", "ok", f"{url} is ready")


def _token(url: str, token: Secret | None) -> Finding:
    from keyturn.bootstrap.diagnosis import Finding, fault

    if token is None:
        return Finding("token", "warn", "no management token is set", "set KEYTURN_TOKEN_FILE, or use `keyturn login`")
    try:
        who = Session(url, token).get("/whoami").json
    except KeyturnError as error:
        return fault("token", error)
    return Finding(
        "token", "ok", f"it belongs to {cell(who.get('name'))} of workspace {cell(who.get('workspace_name'))}"
    )


def _text(answer: dict[str, Any]) -> str:
    lines = []
    for one in answer["checks"]:
        lines.append(f"{one['state']:<5}  {one['check']}: {cell(one['detail'])}")
        if one["next"]:
            lines.append(f"       next: {cell(one['next'])}")
    lines.append("no fault was found" if answer["ok"] else "there are faults")
    return "\n".join(lines)
