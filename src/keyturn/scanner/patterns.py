"""Patterns of paths and names, as people write them in a policy: `*` within a name, `**` across folders.

They are matched in linear time, whatever they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any


def path_matches(pattern: str, path: str) -> bool:
    """Tell whether a path matches.

    A pattern without `/` is compared with every name of the path, one with `/` with the whole path; at its end `/`
    stands for everything below.
    """
    if "/" not in pattern.rstrip("/"):
        return any(name_matches(pattern.rstrip("/"), name) for name in path.split("/"))
    return _compiled(pattern.removeprefix("/")).fullmatch(path) is not None


def name_matches(pattern: str, name: str) -> bool:
    """Tell whether a name matches a pattern with `*` and `?`."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:  # noqa: ANN401 -- re2 ships no types
    import re2

    text, at = "(?s)", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            text, at = text + "(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            text, at = text + ".*", at + 2
        elif pattern[at] == "*":
            text, at = text + "[^/]*", at + 1
        elif pattern[at] == "?":
            text, at = text + "[^/]", at + 1
        else:
            text, at = text + re.escape(pattern[at]), at + 1
    return re2.compile(text + (".*" if pattern.endswith("/") else ""))
