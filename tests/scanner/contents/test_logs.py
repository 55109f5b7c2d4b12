"""Logs of build machines: what the machine wrote around the text is taken off, and the lines stay where they are."""

from __future__ import annotations

import pytest

from keyturn.scanner.model import Context, Document
from tests.scanner.packing import KEY, LINE, opened, showing, shows

STAMP = b"2026-01-02T03:04:05.1234567Z "
GITLAB = b"2026-01-02T03:04:05.123456Z 00O"


def line_of(document: Document) -> int:
    data = bytes(document.data)
    return document.first_line + data.count(b"\n", 0, data.index(KEY))


def owners(data: bytes, path: str = "job.log") -> list[int]:
    """Return the lines in which a document has the key as its own."""
    found = []
    for document in opened(data, path)[0]:
        at = bytes(document.data).find(KEY)
        if document.lead <= at < len(document.data) - document.tail and shows(document):
            found.append(line_of(document))
    return found


def test_escape_sequences_are_taken_out_of_the_middle_of_a_key() -> None:
    colored = KEY[:9] + b"\x1b[01;31m\x1b[K" + KEY[9:20] + b"\x1b[m\x1b[K" + KEY[20:]
    assert owners(b"a\nb " + colored + b"\x1b[0m\n") == [2]


@pytest.mark.parametrize("before", [b"\x1b[32m", b"\x1b[38;5;1m", b"\x1b(B\x1b[m", b"\x1b]0;t\x07", b"\r\x1b[2K"])
def test_key_right_behind_an_escape_sequence(before: bytes) -> None:
    """The last letter of a sequence must not be taken for a part of the word."""
    assert owners(b"x\n" + before + KEY + b"\x1b[0m ok\n") == [2]


def test_address_of_a_link_is_kept() -> None:
    assert showing(b"\x1b]8;;https://u:" + KEY + b"@example.org/\x1b\\text\x1b]8;;\x1b\\\n", "a.log")


def test_time_stamps_are_taken_off_every_line() -> None:
    pem = [b"-----BEGIN X-----", b"MIIabc", b"-----END X-----"]
    ((document,), notices) = opened(b"".join(STAMP + line + b"\n" for line in pem))
    assert bytes(document.data) == b"\n".join(pem) + b"\n"
    assert Context.CI_LOG in document.contexts
    assert notices == []


def test_line_that_says_it_goes_on_with_the_one_before() -> None:
    text = GITLAB + b" start\n" + GITLAB + b" key=" + KEY[:12] + b"\n" + GITLAB + b"+" + KEY[12:] + b" end\n"
    assert owners(text) == [2]


@pytest.mark.parametrize("stamp", [b"", STAMP])
@pytest.mark.parametrize("width", [80, 120, 132])
def test_key_that_a_terminal_wrapped_is_joined_and_found_once(width: int, stamp: bytes) -> None:
    whole = b"x " * ((width - 20) // 2) + b"export KEY=" + KEY + b" && make"
    lines = [b"\x1b[0mfirst", whole[:width], whole[width:], b"last"]
    if stamp:
        lines[0] = b"first"
    assert owners(b"\n".join(stamp + line for line in lines)) == [2]


def test_key_over_three_lines() -> None:
    long = KEY + b"a" * 100
    whole = b"y" * 60 + b" " + long
    lines = [b"\x1b[1m$\x1b[m", whole[:80], whole[80:160], whole[160:]]
    documents = opened(b"\n".join(lines), "a.log")[0]
    assert any(shows(document, long) for document in documents)


def test_whole_key_in_a_full_line_is_found_once() -> None:
    full = (b"key " + KEY).rjust(80, b".")
    text = b"\x1b[0m\n" + full + b"\nnext\n" + b" ".join([b"ab"] * 26) + b"\n"
    assert owners(text) == [2]


def test_text_without_any_of_it_is_handed_on_as_it_is() -> None:
    ((document,), _) = opened(LINE * 10, "notes.log")
    assert bytes(document.data) == LINE * 10


def test_escapes_without_end_take_no_time_and_lose_nothing() -> None:
    for noise in (
        b"\x1b[" * 100_000,
        b"\x1b]" * 100_000,
        b"\x1b[" + b"0" * 500_000,
        b"\x1b]8;" + b"a" * 500_000,
        b"\x1b",
    ):
        documents = opened(noise + b"\n" + LINE, "a.log")[0]
        assert any(shows(document) for document in documents)


def test_big_logs_are_read_in_pieces_and_lose_their_escapes() -> None:
    from msgspec.structs import replace

    from tests.scanner.packing import BUDGET

    text = b"plain line of some build\n" * 2000 + b"\x1b[1m" + KEY[:9] + b"\x1b[0m" + KEY[9:] + b"\n" + b"more\n" * 9000
    documents = opened(text, "a.log", replace(BUDGET, piece=20_000, overlap=500))[0]
    (found,) = [document for document in documents if shows(document)]
    assert line_of(found) == 2001
