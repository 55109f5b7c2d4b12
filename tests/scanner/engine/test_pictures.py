"""Large pictures in base64 are passed over, and everything around them is read, by either engine."""

from __future__ import annotations

import base64
import random

import pytest

from keyturn.scanner.contents.budget import Budget
from keyturn.scanner.decoding.pictures import LEAST, pictures
from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.finders import EDGE
from keyturn.scanner.examination import Hit, examine
from keyturn.scanner.model import Document
from tests.scanner.packing import KEY, LINE

BEGIN = b'<image href="data:image/png;base64,'


def png(size: int) -> bytes:
    """Return base64 of something of that many bytes that begins as a picture does, without padding."""
    return base64.b64encode(b"\x89PNG\r\n\x1a\n\0" + random.Random(7).randbytes(3 * size // 4 // 3 * 3 - 9))


PICTURE = png(20 * LEAST)


def hits(engine: Engine, data: bytes) -> list[Hit]:
    return [one for one in examine(Document(data, "a.svg"), engine, Budget()) if isinstance(one, Hit)]


def test_what_stands_around_pictures_is_found(engine: Engine) -> None:
    text = LINE + BEGIN + PICTURE + b'">\n' + LINE + BEGIN + PICTURE + b'">' + base64.b64encode(LINE) + b"\n" + LINE
    found = hits(engine, text)
    assert [one.place.line for one in found] == [1, 3, 4, 5]
    assert {one.secret for one in found} == {KEY}
    assert found[2].place.encodings == ("base64",)


@pytest.mark.parametrize("kept", [0, 1, EDGE - 40, EDGE, EDGE + 40])
def test_what_only_touches_a_picture_is_found(engine: Engine, kept: int) -> None:
    """Wherever hyperscan leaves off, what begins before a picture or ends after it is whole."""
    text = b"token = '" + KEY + b";base64," + PICTURE[:-kept] + b" " + KEY + b"'"
    assert [one.secret for one in hits(engine, text)] == [KEY, KEY]


def test_nothing_is_found_in_a_picture(engine: Engine) -> None:
    middle = len(PICTURE) // 2
    assert hits(engine, BEGIN + PICTURE[:middle] + b"/" + KEY + b"/" + PICTURE[middle:] + b'"') == []
    assert len(hits(engine, BEGIN + PICTURE[:middle] + b"'" + KEY + b"'" + PICTURE[middle:] + b'"')) == 1


def test_only_what_is_large_and_begins_as_a_picture_is_one() -> None:
    text = BEGIN + PICTURE + b'"'
    assert pictures(text) == [(len(BEGIN), len(BEGIN) + len(PICTURE))]
    assert pictures(BEGIN + PICTURE[: LEAST - 1] + b'"' + bytes(LEAST)) == []
    assert pictures(BEGIN + b"A" + PICTURE + b'"') == []
    assert pictures(b"x" * len(BEGIN) + PICTURE) == []
    assert pictures(text + text) == [
        (len(BEGIN), len(text) - 1),
        (len(text) + len(BEGIN), 2 * len(text) - 1),
    ]
