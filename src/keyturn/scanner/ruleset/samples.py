"""Samples of keys, made when they are needed: no file of ours holds what a scanner would report.

A sample is a template:

    {{base62:36}}        so many characters of 0-9A-Za-z; likewise the other names in `ALPHABETS`
    {{uuid}}             a random UUID in lower case
    {{check}}            the check of what stands before it in the same token, by the rule's checksum
    {{base64(…)}}        its content, itself a template, in base64; likewise base64url and hex

What is drawn depends on the seed alone, so that a failing sample can be made again.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIGITS: Final = "0123456789"
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = _LOWER.upper()
ALPHABETS: Final = {
    "digits": _DIGITS,
    "lower": _LOWER,
    "upper": _UPPER,
    "alnum": _DIGITS + _LOWER,
    "ALNUM": _DIGITS + _UPPER,
    "base62": _DIGITS + _UPPER + _LOWER,
    "base64": _UPPER + _LOWER + _DIGITS + "+/",
    "base64url": _UPPER + _LOWER + _DIGITS + "-_",
    "word": _DIGITS + _UPPER + _LOWER + "_",
    "base58": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
    "base32": _UPPER + "234567",
    "zbase32": "13456789abcdefghijkmnopqrstuwxyz",
    "hex": _DIGITS + "abcdef",
    "HEX": _DIGITS + "ABCDEF",
}
"""What a template may draw from, by name."""

_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "base64": base64.b64encode,
    "base64url": lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"="),
    "hex": lambda raw: raw.hex().encode(),
}
_DRAWN: Final = re.compile(r"\{\{(\w+):(\d{1,4})\}\}|\{\{(uuid)\}\}")
_ENCODED: Final = re.compile(r"\{\{(\w+)\(((?:(?!\{\{\w+\().)*?)\)\}\}", re.DOTALL)
_CHECK: Final = "{{check}}"
_TOKEN: Final = re.compile(r"""[^\s"'`=:,;<>(){}\[\]]*\Z""")


def expand(template: str, seed: str, check_of: Callable[[str], str] | None = None) -> str:
    """Return the text of a template; raises ValueError when it names something unknown.

    `check_of` is the rule's: it gets the token before `{{check}}` and returns the check.
    """
    stream = _stream(seed)
    text = _DRAWN.sub(lambda found: _draw(found, stream), template)
    while _CHECK in text:
        before, _, after = text.partition(_CHECK)
        if check_of is None:
            raise ValueError("the template has {{check}}, and its rule no checksum")
        token = _TOKEN.search(before)
        text = before + check_of(token[0] if token else "") + after
    while (encoded := _ENCODED.sub(_encode, text)) != text:
        text = encoded
    if "{{" in text and re.search(r"\{\{\w+(?::\d+)?\}\}", text):
        raise ValueError(f"the template names something unknown: {template}")
    return text


def _draw(found: re.Match[str], stream: Iterator[int]) -> str:
    if found[3]:
        digits = "".join(ALPHABETS["hex"][next(stream) % 16] for _ in range(32))
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
    alphabet = ALPHABETS.get(found[1])
    if alphabet is None:
        raise ValueError(f"no alphabet is called {found[1]}; there are {', '.join(ALPHABETS)}")
    return "".join(alphabet[next(stream) % len(alphabet)] for _ in range(int(found[2])))


def _encode(found: re.Match[str]) -> str:
    encoder = _ENCODERS.get(found[1])
    if encoder is None:
        raise ValueError(f"no encoding is called {found[1]}; there are {', '.join(_ENCODERS)}")
    return encoder(found[2].encode()).decode()


def _stream(seed: str) -> Iterator[int]:
    for block in range(1 << 20):
        raw = hashlib.blake2b(f"{seed}\0{block}".encode()).digest()
        for at in range(0, len(raw), 4):
            yield int.from_bytes(raw[at : at + 4], "big")
