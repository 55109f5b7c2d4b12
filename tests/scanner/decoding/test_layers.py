"""What a text hides is found at whatever place it begins, and what hides nothing is not decoded."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import json
import lzma
import re
import zlib
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from msgspec.structs import replace

from keyturn.scanner.decoding.layers import decoded
from tests.scanner.packing import BUDGET, KEY, LINE, zipped

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = KEY.decode()
B64 = base64.b64encode


def layers(text: bytes) -> list[tuple[str, bytes]]:
    return [(layer.encoding, layer.data) for layer in decoded(text, BUDGET)]


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("end", [b"", b'"', b"\n", b"\\n", b"&x=1"])
def test_base64_at_any_place(shift: int, end: bytes) -> None:
    text = b"a" * shift + b": '" + B64(LINE) + end
    ((encoding, data),) = layers(text)
    assert (encoding, data) == ("base64", LINE)


@pytest.mark.parametrize("before", ["", "é", "密钥 ", "\x00\x7f"])
@pytest.mark.parametrize("encode", [B64, base64.urlsafe_b64encode])
def test_both_alphabets_and_other_bytes_around(before: str, encode: Callable[[bytes], bytes]) -> None:
    for size in range(6):
        raw = before.encode() + b"?>~" * size + b" " + KEY + b" >?~\xc3\xbf"
        ((_, data),) = layers(b"v=" + encode(raw).rstrip(b"="))
        assert KEY in data


def test_base64_behind_a_path_that_looks_the_same() -> None:
    assert any(KEY in data for _, data in layers(b"https://h/a/b/" + B64(LINE)))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\n    "])
@pytest.mark.parametrize("width", [60, 64, 76])
def test_base64_in_lines(width: int, newline: bytes) -> None:
    encoded = B64(b"a: b\n" * 11 + LINE + b"c: d\n" * 30)
    text = b"data:\n  x: |\n    " + newline.join(encoded[at : at + width] for at in range(0, len(encoded), width))
    assert any(LINE in data for _, data in layers(text + b"\nnext: key"))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bz2.compress, lzma.compress, zstd.compress])
def test_compressed_and_encoded(pack: Callable[[bytes], bytes]) -> None:
    ((encoding, data),) = layers(b"release: " + B64(pack(LINE)))
    assert encoding.startswith("base64+")
    assert data == LINE


def test_zip_and_gzip_in_hexadecimal_and_base64() -> None:
    assert layers(b"x " + B64(zipped({"a": LINE}))) == [("base64+zip", LINE)]
    ((encoding, data),) = layers(gzip.compress(LINE, mtime=0).hex().encode())
    assert (encoding, data) == ("hexadecimal+gzip", LINE)


def test_release_of_a_chart() -> None:
    """A chart's release is gzip in base64 in base64."""
    ((_, once),) = layers(b'{"release":"' + B64(B64(gzip.compress(LINE))) + b'"}')
    ((encoding, data),) = layers(once)
    assert (encoding, data) == ("base64+gzip", LINE)


def test_script_of_powershell() -> None:
    ((_, data),) = layers(b"powershell -enc " + B64(f"$k='{TEXT}'".encode("utf-16-le")))
    assert KEY in data


def test_bound_of_what_is_compressed_is_told() -> None:
    (layer,) = decoded(B64(gzip.compress(bytes(8 << 20))) + b"\n", BUDGET)
    assert layer.cut


@pytest.mark.parametrize("upper", [False, True])
def test_hexadecimal(upper: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    digits = LINE.hex()
    ((encoding, data),) = layers(b"0x" + (digits.upper() if upper else digits).encode() + b";")
    assert (encoding, data) == ("hexadecimal", LINE)


@pytest.mark.parametrize(
    "text",
    [
        '{"env": "A=1\\n' + TEXT + '"}',
        "k = '\\u0073k_live_" + TEXT[8:] + "'",
        "k = '" + "".join(f"\\x{ord(one):02x}" for one in TEXT) + "'",
        "k = '" + "".join(f"\\u{{{ord(one):x}}}" for one in TEXT) + "'",
        json.dumps(json.dumps({"key": TEXT})),
        "url: 'https:\\/\\/user:" + TEXT + "@example.org\\/'",
        "key\\u003d" + TEXT,
        "key\\x3d" + TEXT,
    ],
)
def test_escapes(text: str) -> None:
    found = [data for _, data in layers(text.encode())]
    assert any(re.search(rb"\b" + KEY + rb"\b", data) for data in found)


def test_layers_say_where_they_stand_and_do_not_overlap() -> None:
    text = b"a " + B64(LINE) + b" %3D" + KEY + b" " + LINE.hex().encode() + b'\n"x\\n' + KEY + b'"'
    place = 0
    for layer in decoded(text, BUDGET):
        assert place <= layer.start < layer.end <= len(text)
        place = layer.end
    assert [layer.encoding for layer in decoded(text, BUDGET)] == ["base64", "percent", "hexadecimal", "escapes"]


def test_a_view_of_memory_gives_the_same() -> None:
    text = b"a " + B64(LINE) + b"\n%3D" + KEY + b"\n\\u003d" + KEY + b"\n" + LINE.hex().encode()
    assert list(decoded(memoryview(text), BUDGET)) == list(decoded(text, BUDGET))


@pytest.mark.parametrize(
    "text",
    [
        b"github.com/example/project/sdk/framework/internal/backends/configuration",
        b"aVeryLongIdentifierInCamelCaseThatGoesOnForEver = SomeOtherIdentifierOfTheSameKind()",
        hashlib.sha512(b"x").hexdigest().encode(),
        B64(hashlib.sha512(b"x").digest() * 4),
        b"%d %s %5.2f 100% of \\d+\\w* 'a\\nb' \"\\n\"",
        b"sha512-" + B64(hashlib.sha512(b"y").digest()),
        b"",
        b"H4sIeJwUEsDB",
    ],
)
def test_what_hides_nothing_is_not_decoded(text: bytes) -> None:
    assert layers(text) == []


def test_layers_are_bounded() -> None:
    text = (B64(LINE) + b"\n\n") * 50
    found = list(decoded(text, replace(BUDGET, layers=7)))
    assert [one.cut for one in found] == [False] * 7 + [True]


@pytest.mark.parametrize(
    "text", [b"%41" * 300_000, b"\\x41" * 250_000, b"\\u0041 " * 100_000, B64(b"a" * 700_000), b"41" * 500_000]
)
def test_megabytes_of_one_encoding_are_read_whole(text: bytes) -> None:
    total = sum(layer.end - layer.start for layer in decoded(text, BUDGET))
    assert total > len(text) * 0.9


def test_pictures_are_not_decoded_and_what_follows_them_is() -> None:
    picture = b"\x89PNG\r\n\x1a\n" + b"some text that is in a picture " * 500
    ((_, data),) = layers(b'<img src="data:image/png;base64,' + B64(picture) + b'"> ' + B64(LINE))
    assert data == LINE
