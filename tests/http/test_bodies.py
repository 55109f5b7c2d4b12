import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.errors import InputError, TooLargeError
from keyturn.http import body
from keyturn.wire import keys as wire_keys
from keyturn.wire.keys import RevokeReason
from tests.http.sample import BEARER, Sample, Thing

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (b'{"name": "a", "extra": 1}', "extra"),
        (b'{"name": 5}', "name"),
        (b'{"name": "a", "number": "5"}', "number"),
        (b'{"name": "a", "number": 5.5}', "number"),
        (b'{"name": "a", "number": null}', "number"),
        (b'{"number": 1}', "name"),
        (b'{"name": "a", "parts": [{"number": 1}, {"number": true}]}', "parts[1].number"),
        (b'{"name": "a", "parts": [{"number": 1, "more": 1}]}', "parts[0].more"),
        (b'{"name": "a", "metadata": {"k": 1}}', "metadata[...]"),
        (b'{"name": "a\\u0000"}', "name"),
        (b'{"name": "a", "metadata": {"x": "\\u0000"}}', "metadata.x"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused_by_the_name_of_the_field(
    sample: Sample, sent: bytes, field: str
) -> None:
    answer = await sample.create(sent)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"name": "a"} trailing',
        b'{"name": "\xff"}',
        b'{"name": "\xed\xa0\x80"}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\udc00 alone"}',
        b'{"name": "a\x00"}',
        b'{"name": "a", "number": 1e999}',
        b'{"name": "a", "number": NaN}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"parts":' * 5_000,
        "{\u201cname\u201d: 1}".encode(),
    ],
)
async def test_what_is_not_the_json_asked_for_is_a_400(sample: Sample, sent: bytes) -> None:
    answer = await sample.create(sent)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("said", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_only_json_is_read(sample: Sample, said: str) -> None:
    answer = await sample.create(b'{"name": "a"}', content_type=said)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "said", ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"']
)
async def test_json_may_be_declared_in_any_usual_way(sample: Sample, said: str) -> None:
    assert (await sample.create(b'{"name": "a"}', content_type=said)).status_code == 201


async def test_another_charset_is_refused(sample: Sample) -> None:
    assert (await sample.create(b'{"name": "a"}', content_type="application/json; charset=latin-1")).status_code == 415


async def test_an_escaped_backslash_before_u0000_is_plain_text(sample: Sample) -> None:
    assert (await sample.create(rb'{"name": "\\u0000"}')).status_code == 201


async def test_ten_megabytes_are_refused(sample: Sample) -> None:
    answer = await sample.create(b'{"name": "' + b"a" * 10 * MEBIBYTE + b'"}')
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_body_without_declared_length_is_counted_while_it_comes(sample: Sample) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield b"a" * (MEBIBYTE // 16)

    headers = {**BEARER, "content-type": "application/json"}
    answer = await sample.client.post("/api/v1/things", content=chunks(), headers=headers)
    assert answer.status_code == 413


async def test_a_bulk_route_takes_more(sample: Sample) -> None:
    body = b"[" + b",".join([b'{"name": "' + b"a" * 1024 + b'"}'] * 2048) + b"]"
    assert MEBIBYTE < len(body) < 4 * MEBIBYTE
    headers = {**BEARER, "content-type": "application/json"}
    assert (await sample.client.post("/api/v1/things/bulk", content=body, headers=headers)).text == "2048"


async def test_a_body_is_not_read_before_a_token_was_presented(sample: Sample) -> None:
    """Who is not known gets no megabyte of our memory."""
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        taken += 1
        yield b"{}"

    answer = await sample.client.post("/api/v1/things", content=chunks())
    assert (answer.status_code, taken) == (401, 0)


async def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_READ_SECONDS", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    with pytest.raises(InputError) as refused:
        await body.read_within(stalled(), 100)
    assert refused.value.code == "body_timeout"


async def test_reading_stops_at_the_bound() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10

    with pytest.raises(TooLargeError):
        await body.read_within(endless(), 95)


_decoder: msgspec.json.Decoder[Thing] = msgspec.json.Decoder(Thing)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    _decoded_or_refused(raw)


_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "number", "x"]), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional={"name": _json, "number": _json, "parts": _json, "metadata": _json}))
def test_any_json_is_decoded_or_refused(value: object) -> None:
    _decoded_or_refused(msgspec.json.encode(value))


def _decoded_or_refused(raw: bytes) -> None:
    found: object = None
    try:
        found = body.decode(_decoder, raw)
    except InputError as refused:
        found = refused.message
    assert "\0" not in "".join(_texts(msgspec.to_builtins(found)))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield str(name)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


class Named(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z]+(?!\n)$")]


@pytest.mark.parametrize("sent", [b'{"name": "A"}', b'{"name": "a\\n"}'])
def test_a_pattern_is_shown_as_people_write_it(sent: bytes) -> None:
    with pytest.raises(InputError) as refused:
        body.decode(body.decoder_for(Named), sent)
    assert refused.value.message.endswith("matching regex '^[a-z]+$'")


class Line(msgspec.Struct):
    text: wire_keys.Line


@pytest.mark.parametrize("sent", [b'{"text": " a"}', b'{"text": "a\\nb"}'])
def test_a_pattern_that_forbids_characters_is_told_in_words(sent: bytes) -> None:
    with pytest.raises(InputError) as refused:
        body.decode(body.decoder_for(Line), sent)
    assert refused.value.message == "text: expected one line of printable characters, the first of them no space"


class Chosen(msgspec.Struct):
    one: Literal["a", "b"] = "a"
    many: list[RevokeReason] | None = None
    named: dict[str, Literal["c"]] = {}


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (b'{"one": "x"}', "known here: a, b"),
        (b'{"many": ["x"]}', "known here: " + ", ".join(RevokeReason)),
        (b'{"named": {"n": "x"}}', "known here: c"),
    ],
)
def test_a_word_that_is_none_of_those_known_is_refused_with_them(sent: bytes, known: str) -> None:
    with pytest.raises(InputError) as refused:
        body.decode(body.decoder_for(Chosen), sent)
    assert refused.value.hint == known


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    name: str = ""
    kind: str = msgspec.field(default="", name="type")


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError) as refused:
        body.decode(body.decoder_for(Closed), b'{"nmae": ""}')
    assert (refused.value.field, refused.value.hint) == ("nmae", "known here: name, type")
