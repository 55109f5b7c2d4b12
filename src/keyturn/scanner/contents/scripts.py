"""What web pages are made of: bundles for browsers, and the maps that carry the sources of them; and notebooks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from keyturn.scanner.contents.beginnings import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST: Final = 64 << 20
"""A larger map or notebook is scanned as the text it is."""

_BUNDLE_FOLDERS: Final = re.compile(r"(?:^|/)(?:dist|_next|\.next|\.output|\.nuxt|www|htdocs)/|/static/(?:js|chunks)/")
_BUNDLE_NAME: Final = re.compile(r"(?:\.min|\.bundle|\.chunk|[.-][0-9a-f]{8,20}|-[A-Za-z0-9_-]{8})\.(?:m|c)?js$")
_LONG_LINE: Final = 2000
_CELL_LINE: Final = re.compile(
    rb'^[ \t]*(?:"(?:text/[\w.+-]+|source|data)": )?"((?:[^"\\\n]++|\\.)*+)",?[ \t\r]*$', re.MULTILINE
)
_PICTURE: Final = re.compile(
    rb'"(?:image|application)/[\w.+-]+": *"(?=(?:[A-Za-z0-9+/=]|\\n){128})(?:[A-Za-z0-9+/=]++|\\n)++"'
)
_NESTED: Final = 8


def is_client_bundle(path: str, head: bytes) -> bool:
    """Whether a script is made for browsers: by its name, or because no person writes such lines."""
    if not path.endswith(SCRIPTS):
        return False
    if _BUNDLE_FOLDERS.search(path) or _BUNDLE_NAME.search(path):
        return True
    return len(head) > _LONG_LINE and b"\n" not in head[-_LONG_LINE:]


def is_source_map(path: str, head: bytes) -> bool:
    """Whether it is the map of a bundle to its sources."""
    return head[:1] in {b"{", b")"} and (
        b'"sourcesContent"' in head or (path.endswith(".map") and (b'"version"' in head or b'"mappings"' in head))
    )


def sources_of(data: bytes) -> list[tuple[str, bytes]] | None:
    """Return the sources that a map carries with their names, last what else it says; None when it is none."""
    import msgspec

    body = data[data.find(b"{") :] if data.startswith(b")") else data
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if not isinstance(document, dict):
        return None
    found = list(_sources(document, 0))
    rest = {key: value for key, value in document.items() if key not in {"sourcesContent", "mappings", "sections"}}
    try:
        found.append(("", msgspec.json.format(msgspec.json.encode(rest), indent=1)))
    except (ValueError, RecursionError):
        return None
    return found


def cells_of(data: bytes) -> bytes | None:
    """Return a notebook's text, each line of it in the line where it stands; None when it is written in one line."""
    if data.count(b"\n", 0, 4096) < 4:
        return None
    from keyturn.scanner.decoding.escapes import unescaped

    text = _PICTURE.sub(b"", data)

    def cell(found: re.Match[bytes]) -> bytes:
        line = found[1].removesuffix(b"\\n")
        return unescaped(line).replace(b"\n", b" ") if b"\\" in line else line

    return _CELL_LINE.sub(cell, text)


def _sources(document: dict[str, Any], depth: int) -> Iterator[tuple[str, bytes]]:
    contents = document.get("sourcesContent")
    names = document.get("sources")
    if isinstance(contents, list):
        for index, content in enumerate(contents):
            if isinstance(content, str) and content:
                named = names[index] if isinstance(names, list) and index < len(names) else None
                name = named if isinstance(named, str) and named else f"source {index}"
                yield name, content.encode("utf-8", "replace")
    sections = document.get("sections")
    if isinstance(sections, list) and depth < _NESTED:
        for section in sections:
            inner = section.get("map") if isinstance(section, dict) else None
            if isinstance(inner, dict):
                yield from _sources(inner, depth + 1)
