"""Compiles expressions for hyperscan, within bounds of time and memory.

Each rule is tried in ways that ask less and less of hyperscan, until one is taken: its expression, a wider one that
only tells whether it is worth looking, its literals, and at last nothing, which means that RE2 always looks.
Rules that are not ours are compiled in a process of their own, which ends when it takes too long.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.scanner.engine.plans import Look, Plan, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    import hyperscan

SECONDS_MAX: Final = 30.0
"""Rules that are not ours and take longer to compile are looked for by their literals."""
MEMORY_MAX: Final = 2 << 30
PROBE: Final = 16 * 1024
FLOOD: Final = PROBE // 32
"""A rule with so many ends in a probe is told of once, and confirmed over everything."""


class Compiled(msgspec.Struct, frozen=True, array_like=True):
    """What hyperscan made of the rules, serialised; empty when there is nothing that it could look for."""

    database: bytes
    plans: tuple[Plan, ...]


class _Attempt(msgspec.Struct, frozen=True):
    way: Way
    expression: bytes = b""
    flags: int = 0


def compile_looks(looks: Sequence[Look]) -> Compiled:
    """Compile expressions; the result says how each rule has to be looked for."""
    import hyperscan

    attempts = [_attempts(look) for look in looks]
    chosen = [one[0] for one in attempts]
    try:
        database = _database(chosen)
    except hyperscan.error:
        chosen = [_first_taken(one) for one in attempts]
        try:
            database = _database(chosen)
        except hyperscan.error:
            return compile_literals(looks)
    floods = _floods(database, chosen)
    if floods:
        single = hyperscan.HS_FLAG_SINGLEMATCH
        for at in floods:
            chosen[at] = _Attempt(Way.WHOLE, chosen[at].expression, chosen[at].flags | single)
        database = _database(chosen)
    return _compiled(database, chosen, looks)


def compile_literals(looks: Sequence[Look]) -> Compiled:
    """Compile nothing but literals, which takes no time worth bounding."""
    attempts = [(look, _attempts(look)) for look in looks]
    chosen = [one[-2] if look.plan.literals and len(one) > 1 else one[-1] for look, one in attempts]
    return _compiled(_database(chosen), chosen, looks)


def compile_bounded(looks: Sequence[Look], seconds: float = SECONDS_MAX) -> Compiled:
    """Compile expressions of unknown origin; those that take too long or too much are looked for by literals."""
    if not sys.executable:
        return compile_literals(looks)
    # -P: a module of the folder that is scanned is never imported.
    command = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(
            command, input=msgspec.msgpack.encode(list(looks)), capture_output=True, timeout=seconds, check=True
        )
        return msgspec.msgpack.decode(done.stdout, type=Compiled)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return compile_literals(looks)


def _attempts(look: Look) -> list[_Attempt]:
    import hyperscan

    single = hyperscan.HS_FLAG_SINGLEMATCH
    if look.plan.way in {Way.NEVER, Way.PATH}:
        return [_Attempt(look.plan.way)]
    found = []
    if look.plan.way is Way.WINDOWS:
        found.append(_Attempt(Way.WINDOWS, look.expression))
    found.append(_Attempt(Way.WHOLE, look.expression, single))
    found.append(_Attempt(Way.WHOLE, look.expression, single | hyperscan.HS_FLAG_PREFILTER))
    if look.plan.literals:
        words = b"|".join(b"".join(b"\\x%02x" % byte for byte in word) for word in look.plan.literals)
        found.append(_Attempt(Way.WHOLE, words, single | hyperscan.HS_FLAG_CASELESS))
    return [*found, _Attempt(Way.ALWAYS)]


def _database(chosen: Sequence[_Attempt]) -> hyperscan.Database | None:
    import hyperscan

    used = [(at, one) for at, one in enumerate(chosen) if one.expression]
    if not used:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    database.compile(
        expressions=[one.expression for _, one in used],
        ids=[at for at, _ in used],
        flags=[one.flags for _, one in used],
    )
    return database


def _first_taken(attempts: Sequence[_Attempt]) -> _Attempt:
    import hyperscan

    for one in attempts[:-1]:
        try:
            _database([one])
        except hyperscan.error:
            continue
        return one
    return attempts[-1]


def _floods(database: hyperscan.Database | None, chosen: Sequence[_Attempt]) -> list[int]:
    """Return the rules whose matches end nearly everywhere in some text."""
    if database is None:
        return []
    found: set[int] = set()
    for probe in _probes():
        ends = [0] * len(chosen)

        def count(rule: int, _start: int, _end: int, _flags: int, _context: object, ends: list[int] = ends) -> None:
            ends[rule] += 1

        database.scan(probe, match_event_handler=count)
        found.update(at for at, number in enumerate(ends) if number > FLOOD)
    return sorted(found)


def _probes() -> list[bytes]:
    drawn = hashlib.shake_256(b"probe").digest(PROBE)
    base62 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    alphabets = [base62, b"0123456789abcdef", b"etaoin shrdlu cmfwyp", bytes(range(32, 127)), b"0123456789", b"a", b" "]
    return [bytes(one[byte % len(one)] for byte in drawn) for one in alphabets]


def _compiled(database: hyperscan.Database | None, chosen: Sequence[_Attempt], looks: Sequence[Look]) -> Compiled:
    import hyperscan

    plans = tuple(msgspec.structs.replace(look.plan, way=one.way) for look, one in zip(looks, chosen, strict=True))
    return Compiled(hyperscan.dumpb(database) if database is not None else b"", plans)


def _serve() -> None:
    """Compile what is on standard input, and write the result."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
    except (ImportError, ValueError, OSError):
        pass  # the time is bounded in any case
    looks = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Look])
    sys.stdout.buffer.write(msgspec.msgpack.encode(compile_looks(looks)))


if __name__ == "__main__":
    _serve()
