"""What may be shown of a secret: the letters that every secret of its rule begins with, and how long it is.

Of a key of Keyturn's own format that is its public id too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from keyturn.scanner.ruleset.model import Rule

MASK: Final = "…"
LINE_BYTES_MAX: Final = 160
"""How much of a line is shown, at most, around a secret."""

OWN_CHECKSUM: Final = "keyturn"
_PREFIX_MAX: Final = 32
_SPECIAL: Final = frozenset(".^$*+?{}[]\\|()")
_ALTERNATIVES: Final = r"\(\?:([\w\-|]+)\)(?![?*{])"
_SHORTEST_REPEATED: Final = 4
_SHORTEST_ENCODED: Final = 8
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_RUN: Final = re.compile(rb"[A-Za-z0-9+/=_%-]*")


def masked(rule: Rule, secret: bytes) -> str:
    """Return the beginning that is no secret, and the count of characters: never the end of it."""
    if not secret:
        return ""
    text = secret.decode("utf-8", "replace")
    prefix = _public_part(text) if rule.checksum == OWN_CHECKSUM else _shown_prefix(rule, text)
    count = len(text)
    return f"{prefix}{MASK}({count} character{'' if count == 1 else 's'})"


def _public_part(text: str) -> str:
    """Return what logs and support name a key of Keyturn's format by: everything up to its public id."""
    from keyturn.kernel.tokenformat import parse

    found = parse(text)
    return "" if found is None else f"{found.prefix}_{found.tag}_{found.version_id}"


def _shown_prefix(rule: Rule, text: str) -> str:
    lowered = text.lower()
    for literal in literal_prefixes(rule.regex, rule.secret_group):
        # What is nearly the whole secret is not its prefix, whatever the rule says.
        if lowered.startswith(literal.lower()) and 2 * len(literal) <= len(text):
            return text[: len(literal)]
    return ""


@lru_cache(maxsize=1024)
def literal_prefixes(regex: str, group: int) -> tuple[str, ...]:
    """Return the texts that the secret of a regular expression begins with, as it says so itself; longest first."""
    start = _group_start(regex, group or 1)
    if start is None:
        start = 0 if group == 0 else len(regex)
    found = {prefix[:_PREFIX_MAX] for prefix in _prefixes(regex, start)} - {""}
    return tuple(sorted(found, key=lambda one: (-len(one), one)))


def _group_start(regex: str, group: int) -> int | None:
    seen, at, in_class = 0, 0, False
    while at < len(regex):
        char = regex[at]
        if char == "\\":
            at += 2
            continue
        if in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            at += 1 if regex[at + 1 : at + 2] == "]" else 0
        elif char == "(" and (regex[at + 1 : at + 2] != "?" or regex.startswith("(?P<", at)):
            seen += 1
            if seen == group:
                return regex.index(">", at) + 1 if regex.startswith("(?P<", at) else at + 1
        at += 1
    return None


def _prefixes(regex: str, at: int) -> Iterator[str]:
    prefix = ""
    while at < len(regex):
        alternatives = re.compile(_ALTERNATIVES).match(regex, at)
        if alternatives is not None:
            for one in alternatives[1].split("|"):
                for rest in _prefixes(regex, alternatives.end()):
                    yield prefix + one + rest
            return
        literal, after = _literal(regex, at)
        # A character that may be missing, or comes several times, is no part of the beginning.
        if not literal or regex[after : after + 1] in {"?", "*", "{", "|"}:
            break
        prefix += literal
        if regex[after : after + 1] == "+":
            break
        at = after
    yield prefix


def _literal(regex: str, at: int) -> tuple[str, int]:
    if regex.startswith("\\b", at):
        literal, after = _literal(regex, at + 2)
        return literal, after
    char = regex[at : at + 1]
    if char == "\\":
        escaped = regex[at + 1 : at + 2]
        return ("", at) if escaped.isalnum() else (escaped, at + 2)
    return ("", at) if char in _SPECIAL else (char, at + 1)


def masked_line(
    window: bytes, spans: Iterable[tuple[int, int, str]], secrets: Iterable[bytes], shown: tuple[int, int] | None = None
) -> str:
    """Return a piece of a line with every span, and every further occurrence of the secrets, encoded too, masked.

    A span is where something secret stands in the piece, half open, perhaps beyond its ends, and what stands for it.
    Of a piece only what is between `shown` is returned; the rest lets secrets be seen that reach into it.
    """
    first, last = shown or (0, len(window))
    taken = [*spans, *((start, end, MASK) for start, end in _occurrences(window, secrets))]
    parts: list[bytes] = []
    at, masked_to = first, first
    for start, end, text in sorted(taken, key=lambda one: (one[0], -one[1], -len(one[2]))):
        if end <= at or start >= last:
            continue
        # Of two that overlap the second goes on where the first one ended, and is masked by it.
        if start >= masked_to or not parts:
            parts += [window[at : max(start, at)], text.encode()]
        at = masked_to = end
    parts.append(window[at:last])
    return _one_line(b"".join(parts))


def _occurrences(window: bytes, secrets: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    for secret in {one for one in secrets if len(one) >= _SHORTEST_REPEATED}:
        yield from _places(window, secret)
        if len(secret) >= _SHORTEST_ENCODED:
            for form in _encoded(secret):
                for start, end in _places(window, form):
                    # Its neighbours in the same run may be of characters that it shares.
                    before, after = _RUN.match(window[:start][::-1]), _RUN.match(window, end)
                    yield start - (before.end() if before else 0), after.end() if after else end


def _places(window: bytes, form: bytes) -> Iterator[tuple[int, int]]:
    at = window.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = window.find(form, at + len(form))


def _encoded(secret: bytes) -> set[bytes]:
    """Return how a secret is written in hexadecimal, percent escapes, and base64 at each place where one can begin."""
    import base64
    from urllib.parse import quote_from_bytes

    forms = {secret.hex().encode(), secret.hex().upper().encode()}
    quoted = quote_from_bytes(secret, safe="").encode()
    forms |= {quoted, re.sub(rb"%..", lambda found: found[0].lower(), quoted)} - {secret}
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + secret)[(shift * 8 + 5) // 6 : (shift + len(secret)) * 8 // 6]
        forms |= {text, text.translate(_URL_SAFE)}
    return forms


def _one_line(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").replace("\t", " ").strip()
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
