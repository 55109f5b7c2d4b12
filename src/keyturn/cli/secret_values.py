"""Values of secrets on the command line: from a prompt, stdin or files, never from an argument.

    NAME            asked for without being shown; read from stdin where that is no terminal
    NAME=-          everything on stdin
    NAME=@FILE      the text of a file, exactly as it is
    --binary NAME=@FILE             bytes, kept as {"$binary": "<base64>"}
    --from-json FILE                all fields at once, as a JSON object; `-` is stdin

A newline at the end of stdin is dropped, because `echo` and an editor add one; a file keeps it.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from keyturn.delivery.files import write_private
from keyturn.errors import InputError

BINARY: Final = "$binary"
_READABLE: Final = "give NAME to be asked for it, NAME=- for stdin, or NAME=@FILE for a file"


def read_fields(named: tuple[str, ...], binary: tuple[str, ...] = (), from_json: str | None = None) -> dict[str, Any]:
    """Read the fields that arguments name; raises InputError, which never repeats a value."""
    if [*named, from_json or ""].count("-") + sum(_reads_stdin(one) for one in named) > 1:
        message = "stdin can be one value only"
        raise InputError(message, hint="use files for the others")
    fields = _object_of(from_json) if from_json is not None else {}
    for one in named:
        name, equals, source = one.partition("=")
        fields[_name(name)] = _asked(name) if not equals else _text_of(name, source)
    for one in binary:
        name, _, source = one.partition("=")
        if not source.startswith("@"):
            message = "expected NAME=@FILE"
            raise InputError(message, field="--binary")
        fields[_name(name)] = {BINARY: base64.b64encode(_bytes_of(source[1:])).decode()}
    return fields


def raw_value(value: Any) -> bytes:  # noqa: ANN401 -- any JSON value
    """Return a field as bytes: text as it is, bytes as they were, anything else as JSON."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {BINARY} and isinstance(value[BINARY], str):
        try:
            return base64.b64decode(value[BINARY], validate=True)
        except (binascii.Error, ValueError):
            message = f"the field looks like bytes, but its {BINARY} is not base64"
            raise InputError(message) from None
    return json.dumps(value, ensure_ascii=False).encode()


def write_raw(value: Any, output: Path | None) -> None:  # noqa: ANN401 -- any JSON value
    """Write a field to a file that nobody else can read, in one step, or to stdout; a terminal gets a newline after it.

    Raises ConfigError when the file cannot be written.
    """
    content = raw_value(value)
    if output is not None:
        write_private(output, content)
        return
    stream = sys.stdout.buffer
    stream.write(content)
    if sys.stdout.isatty():
        stream.write(b"\n")
    stream.flush()


def _reads_stdin(argument: str) -> bool:
    name, equals, source = argument.partition("=")
    return bool(name) and (source == "-" if equals else not sys.stdin.isatty())


def _name(name: str) -> str:
    if not name:
        message = f"a field has no name; {_READABLE}"
        raise InputError(message)
    return name


def _text_of(name: str, source: str) -> str:
    if source == "-":
        return _stdin()
    if not source.startswith("@"):
        message = f"the value of {name[:64]!r} stands in the command line, where every process of this machine sees it"
        raise InputError(message, hint=_READABLE)
    try:
        return _bytes_of(source[1:]).decode()
    except UnicodeDecodeError:
        message = f"the file for {name[:64]!r} is not UTF-8"
        raise InputError(message, hint=f"keep bytes with --binary {name[:64]}=@FILE") from None


def _asked(name: str) -> str:
    if not sys.stdin.isatty():
        return _stdin()
    return str(click.prompt(name, hide_input=True, confirmation_prompt=True, err=True))


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        message = "what came on stdin is not UTF-8"
        raise InputError(message, hint="keep bytes with --binary NAME=@FILE") from None


def _object_of(source: str) -> dict[str, Any]:
    try:
        found = json.loads(sys.stdin.buffer.read() if source == "-" else _bytes_of(source))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        message = "expected a JSON object of fields"
        raise InputError(message, field="--from-json")
    return found


def _bytes_of(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        message = f"the file {name!r} cannot be read: {error.strerror}"
        raise InputError(message) from None
