"""`.env` files: what is read, what is refused, and what is written back."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.delivery.dotenv import WRITERS, compare, parse, write_dotenv, write_json, write_shell, write_yaml
from keyturn.errors import InputError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b ", "b"),
        ("export A=b", "b"),
        ("export\tA=b", "b"),
        ("  A=b", "b"),
        ("A=", ""),
        ("A=b c", "b c"),
        ("A=b # comment", "b"),
        ("A=b#no comment", "b#no comment"),
        ("A= # comment", ""),
        ("A=#value", "#value"),
        ("A='b # c'", "b # c"),
        ("A='b' # c", "b"),
        ('A="b\\nc\\t\\"d\\" \\$e \\\\ \\q"', 'b\nc\t"d" $e \\ \\q'),
        ("A='b\\nc'", "b\\nc"),
        ("A='one\ntwo'", "one\ntwo"),
        ('A="one\ntwo"', "one\ntwo"),
        ('A="one\\\ntwo"', "onetwo"),
        ("A=b=c==", "b=c=="),
        ("A=it's", "it's"),
        ("A=$(touch evil)", "$(touch evil)"),
        ("A=`id`", "`id`"),
        ("A=${B}", "${B}"),
        ("A=wörd", "wörd"),
        ("\ufeffA=b", "b"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_lines_mean_what_they_say(line: str, value: str, end: str) -> None:
    found = parse((line + end).encode()).values
    assert found == {"A": value}


def test_a_whole_file() -> None:
    found = parse(b"# first\r\n\r\nA=1\r\nB='x\r\ny'\r\nA=2\nC=$HOME\n   # last")
    assert found.values == {"A": "2", "B": "x\ny", "C": "$HOME"}
    assert (found.lines, found.repeated, found.expanded) == ({"A": 6, "B": 4, "C": 7}, ("A",), ("C",))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"A=1\nB", "line 2, column 2"),
        (b"A=1\n =2", "line 2, column 2"),
        (b"A='never closed\n\n", "line 1, column 3"),
        (b'A="x" y', "line 1, column 6"),
        (b"1A=x", "line 1, column 1"),
        (b"A=1\n\xff=2", "line 2"),
        (b"A=x\0y", "line 1"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(content: bytes, where: str) -> None:
    with pytest.raises(InputError, match=where):
        parse(content)


def test_an_error_never_shows_the_line() -> None:
    """A line that is not understood is often a secret that was pasted wrongly."""
    pasted = "-".join(("Secret", "pasted", "wrongly"))
    for content in (f"A=1\n{pasted}!", f"A='x' {pasted}", f"A='{pasted}"):
        with pytest.raises(InputError) as caught:
            parse(content.encode())
        # A name may be shown, because without one nobody finds the line.
        assert "wrongly!" not in str(caught.value)
    assert pasted not in repr(parse(f"A={pasted}".encode()))


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
fields = st.dictionaries(names, texts, max_size=6)


@given(fields=fields)
def test_what_is_written_is_read_back(fields: dict[str, str]) -> None:
    assert parse(write_dotenv(fields).encode()).values == fields


@given(content=st.binary(max_size=200))
def test_nothing_but_a_refusal_comes_of_any_bytes(content: bytes) -> None:
    with contextlib.suppress(InputError):
        parse(content)


@given(fields=fields)
def test_shell_and_json_say_the_same(fields: dict[str, str]) -> None:
    assert json.loads(write_json(fields)) == fields
    words = shlex.split(write_shell(fields))
    assert words == [word for name, value in fields.items() for word in ("export", f"{name}={value}")]


def test_a_shell_reads_the_shell_form_without_running_anything() -> None:
    value = "$(exit 7) `id` 'q' \"d\" \\ \n#"
    script = write_shell({"A": value}) + 'printf %s "$A"'
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True, text=True).stdout == value


def test_yaml_takes_no_value_for_something_else() -> None:
    text = write_yaml({"no": "yes", "n": "1", "colon": "a: b # c", "line": "x\u2028y", "number": 5})
    assert text == '"no": "yes"\n"n": "1"\n"colon": "a: b # c"\n"line": "x\\u2028y"\n"number": 5\n'


@pytest.mark.parametrize("kind", ["dotenv", "shell"])
@pytest.mark.parametrize("fields", [{"a-b c": "x"}, {"A": "x\0"}, {"A\nB": "x"}, {"A=$(id)": "x"}])
def test_what_a_form_cannot_hold_is_refused(kind: str, fields: dict[str, str]) -> None:
    """A name of a field is written by whoever writes the secret, and a shell would run what is in it."""
    with pytest.raises(InputError):
        WRITERS[kind](fields)


def test_bytes_are_written_when_they_are_text() -> None:
    assert write_dotenv({"A": {"$binary": "aGk="}}) == "A=hi\n"
    with pytest.raises(InputError):
        write_dotenv({"A": {"$binary": "/w=="}})


def test_a_comparison_names_and_never_shows() -> None:
    found = compare({"A": "1", "B": "2", "C": "3", "N": "5"}, {"B": "2", "C": "x", "D": "4", "N": 5})
    assert (found.added, found.removed, found.changed, found.same) == (("A",), ("D",), ("C",), ("B", "N"))
    assert found
    assert not compare({"A": "1"}, {"A": "1"})
