"""The HTTP and metrics references list what a running server has, and the CLI reference what `keyturn` has."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from keyturn.cli.main import cli
from keyturn.testing.server import RunningServer
from keyturn.testing.valkey import ValkeyServer

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
_HEADERS = ("Idempotency-Key", "If-Match")


def _sections(page: str) -> dict[str, str]:
    """Return what stands under each heading of the third level, up to the next heading."""
    text = (REFERENCE / page).read_text()
    return dict(re.findall(r"^### (.+?)\n(.*?)(?=^#{1,3} |\Z)", text, re.MULTILINE | re.DOTALL))


def _first_cells(section: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path_factory.mktemp("documented") / "data") as running:
        yield running


@pytest.fixture
def server_with_valkey(tmp_path: Path, valkey_server: ValkeyServer) -> Iterator[RunningServer]:
    with RunningServer.start(tmp_path / "data", env={"KEYTURN_VALKEY_URL": valkey_server.url}) as running:
        yield running


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    with urllib.request.urlopen(f"{server.url}/api/v1/openapi.json", timeout=120) as response:  # noqa: S310 -- our own
        described: dict[str, Any] = json.load(response)
    return described


def _operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def _schema(document: dict[str, Any], reference: str) -> dict[str, Any]:
    schema: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


def _fields(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    fields = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
    if "requestBody" in operation:
        ((_, content),) = operation["requestBody"]["content"].items()
        schema = content["schema"].get("items", content["schema"])
        fields += _schema(document, schema["$ref"]).get("properties", {})
    return fields


def _answer(operation: dict[str, Any]) -> str | None:
    """Return the name of the schema that a success answers, None when it is no JSON object."""
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {}) if status[0] == "2" else {}
        if "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
    return None


@pytest.mark.slow
def test_every_operation_is_described_with_its_fields(document: dict[str, Any]) -> None:
    sections = {heading: text for heading, text in _sections("http.md").items() if " /" in heading}
    operations = _operations(document)
    assert sorted(sections) == sorted(operations)
    listed = {name: sorted(_first_cells(sections[name])) for name in operations}
    assert listed == {name: sorted(_fields(document, one)) for name, one in operations.items()}


@pytest.mark.slow
def test_every_operation_says_which_headers_it_takes_and_what_it_answers(document: dict[str, Any]) -> None:
    sections = _sections("http.md")
    wrong = []
    for name, operation in _operations(document).items():
        taken = {one["name"] for one in operation.get("parameters", ())}
        said = {header for header in _HEADERS if f"`{header}`" in sections[name]}
        answer = _answer(operation)
        if said != taken & set(_HEADERS) or (answer is not None and f"[{answer}](#" not in sections[name]):
            wrong.append(name)
    assert wrong == []


@pytest.mark.slow
def test_every_member_of_every_answer_is_listed(document: dict[str, Any]) -> None:
    sections = _sections("http.md")
    answers = {answer for one in _operations(document).values() if (answer := _answer(one)) is not None}
    listed = {name: re.findall(r"`(\w+)`", sections[name].strip().splitlines()[-1]) for name in answers}
    assert listed == {name: list(_schema(document, name)["properties"]) for name in answers}


@pytest.mark.slow
def test_every_metric_is_listed(server: RunningServer, server_with_valkey: RunningServer) -> None:
    kinds: dict[str, str] = {}
    for running in (server, server_with_valkey):
        with urllib.request.urlopen(f"{running.url}/metrics", timeout=120) as response:  # noqa: S310 -- our own
            kinds |= dict(re.findall(r"^# TYPE (\S+) (\S+)$", response.read().decode(), re.MULTILINE))
    listed = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", (REFERENCE / "metrics.md").read_text(), re.MULTILINE))
    assert listed == kinds


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from _commands(f"{name} {child}", found)
    else:
        yield name, command


def test_every_command_is_described_with_its_options() -> None:
    commands = {f"`{name}`": command for name, command in _commands("keyturn", cli)}
    sections = _sections("cli.md")
    assert sorted(sections) == sorted(commands)
    options = {
        name: sorted(one.opts[0] for one in command.params if isinstance(one, click.Option))
        for name, command in commands.items()
    }
    assert {name: sorted(_first_cells(sections[name])) for name in commands} == options
