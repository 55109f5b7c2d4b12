"""Opens engines: compiled rules come from the cache when it has them, so that a warm start reads no rule file."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.finders import HyperscanFinder, KeywordFinder
from keyturn.scanner.engine.plans import Plan
from keyturn.scanner.ruleset.model import Rule, Ruleset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyturn.scanner.cache import Cache
    from keyturn.scanner.engine.finders import Finder

FORMAT: Final = "3"
"""What a cached entry is; another one is not read."""
KEEP: Final = 8
"""So many rule sets are kept compiled."""
_PREFIX: Final = "engine-"
_RULES: Final = Path(__file__).parent.parent / "ruleset"


class Prepared(msgspec.Struct, frozen=True, array_like=True):
    """Rules and what was made of them."""

    ruleset: Ruleset
    plans: tuple[Plan, ...]
    database: bytes
    by_keywords: bool


def open_engine(ruleset: Ruleset | None = None, *, cache: Cache | None, fallback: bool = False) -> Engine:
    """Return an engine of some rules, or of those that ship with Keyturn.

    `fallback` does without hyperscan, as is done where it is not installed: the same findings, only later.

    Raises:
        InputError: a rule cannot be used; names it.

    """
    library = "" if fallback else _hyperscan_version()
    shipped = ruleset is None
    name = _PREFIX + _digest([FORMAT, library, _machine() if library else "", *_identity(ruleset)])
    if cache is not None and (engine := _from_cache(cache, name, ruleset)) is not None:
        return engine
    prepared = _prepare(_shipped() if ruleset is None else ruleset, shipped=shipped, library=library)
    if cache is not None and cache.write(name, msgspec.msgpack.encode(prepared)):
        cache.prune(_PREFIX, KEEP)
    return _engine(prepared, ruleset or prepared.ruleset)


def ruleset_digest(ruleset: Ruleset) -> str:
    """Return what tells rule sets apart: of one digest, they find the same."""
    return _digest([FORMAT, msgspec.msgpack.encode(ruleset).hex()])


def _from_cache(cache: Cache, name: str, ruleset: Ruleset | None) -> Engine | None:
    found = cache.read(name)
    if found is None:
        return None
    try:
        prepared = msgspec.msgpack.decode(found, type=Prepared)
    except msgspec.MsgspecError:
        return None
    try:
        return _engine(prepared, ruleset or prepared.ruleset)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"hyperscan", "_hs_ext"}:
            raise
        return None  # compiled on a machine of the same name that cannot do the same


def _prepare(ruleset: Ruleset, *, shipped: bool, library: str) -> Prepared:
    from keyturn.scanner.engine.planning import check, look_for

    if not shipped:
        check(ruleset)  # those that ship were checked before they did
    rules = tuple(_bare(rule) for rule in ruleset.rules)
    ruleset = msgspec.structs.replace(ruleset, rules=rules)
    looks = [look_for(rule) for rule in rules]
    if not library:
        return Prepared(ruleset, tuple(look.plan for look in looks), b"", by_keywords=True)
    from keyturn.scanner.engine.compiling import compile_bounded, compile_looks

    made = compile_looks(looks) if shipped else compile_bounded(looks)
    return Prepared(ruleset, made.plans, made.database, by_keywords=False)


def _engine(prepared: Prepared, ruleset: Ruleset) -> Engine:
    finder: Finder = (
        KeywordFinder(prepared.plans) if prepared.by_keywords else HyperscanFinder(prepared.database, prepared.plans)
    )
    return Engine(ruleset, finder)


def _bare(rule: Rule) -> Rule:
    return rule if type(rule) is Rule else Rule(**{name: getattr(rule, name) for name in Rule.__struct_fields__})


def _shipped() -> Ruleset:
    from keyturn.scanner.ruleset.load import shipped_ruleset

    return shipped_ruleset()


def _identity(ruleset: Ruleset | None) -> Iterator[str]:
    """Name what the compiled rules depend on: their contents, or the files that they are in."""
    if ruleset is not None:
        yield msgspec.msgpack.encode(ruleset).hex()
    folders = [Path(__file__).parent, *([_RULES, _RULES / "data"] if ruleset is None else [])]
    for folder in folders:
        for path in sorted(folder.glob("*.[pt]*")):
            about = path.stat()
            yield f"{path.name} {about.st_size} {about.st_mtime_ns}"


def _hyperscan_version() -> str:
    """Return the version of hyperscan, empty where there is none."""
    try:
        import hyperscan
    except ImportError:
        return ""
    return str(hyperscan.__version__)  # type: ignore[attr-defined]


def _machine() -> str:
    """Name what a compiled database depends on: the processor's kind and abilities."""
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            abilities = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        abilities = ""
    machine = os.uname().machine if hasattr(os, "uname") else ""
    return f"{sys.platform} {machine} {abilities}"


def _digest(parts: list[str]) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
