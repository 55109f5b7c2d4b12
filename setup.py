"""The package; with KEYTURN_COMPILE=1, what decides about a presented key is compiled by mypyc from the same source."""

import os
from pathlib import Path

from setuptools import setup

# Functions and slotted classes that nothing derives from.  A module with a msgspec Struct is left out: mypyc does not
# heed its keywords, and would leave it mutable.
COMPILED = {
    "kernel": ("ids", "match", "secret", "tokenformat"),
    "verify": (
        "admission",
        "demands",
        "limits",
        "networks",
        "origins",
        "paths",
        "query",
        "restrictions",
        "rules",
        "standing",
        "terms",
    ),
}


def extensions() -> list[object]:
    """Return what is to be compiled: nothing unless it is asked for."""
    if os.environ.get("KEYTURN_COMPILE") != "1":
        return []
    from mypyc.build import mypycify

    sources = [Path("src/keyturn") / package / f"{name}.py" for package, names in COMPILED.items() for name in names]
    return list(mypycify(["--follow-imports=silent", *map(str, sources)]))


if __name__ == "__main__":
    setup(ext_modules=extensions())
