"""How each rule is looked for, as `planning` decided; an engine of cached rules needs no more than this."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec

from keyturn.errors import InputError

if TYPE_CHECKING:
    import re2

    from keyturn.scanner.model import Bytes

PROGRAM_MAX: Final = 30_000
"""Most instructions of a compiled expression: time is proportional to them, where RE2 finds no faster way."""
EXPRESSION_MAX: Final = 64 * 1024
MEMORY_MAX: Final = 32 << 20
"""What RE2 may use for one expression."""


class Way(IntEnum):
    """How a rule is looked for."""

    WINDOWS = 0
    """By the ends of its matches, and confirmed around them."""
    WHOLE = 1
    """Whether it is there at all, and confirmed over everything: its matches end nearly everywhere."""
    ALWAYS = 2
    """Confirmed over everything: nothing faster can tell whether it is there."""
    NEVER = 3
    """It has no expression."""
    PATH = 4
    """Confirmed over everything, in documents of its path alone: its expression tells too little of itself."""


class Split(msgspec.Struct, frozen=True, array_like=True):
    """A large expression in parts: what each match of it begins with, from behind its head, and the head.

    core    in Latin-1; it has a match exactly where the whole expression has one, apart from the head
    head    bytes of which at most so many as `most` may stand before that, and belong to the match
    """

    core: bytes
    head: bytes = b""
    most: int = 0


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """How one rule is looked for.

    `before` is also the most bytes that a match can be long.
    `literals` are in lower case, and one of them stands in every match.
    `value` is how many bytes before an end that is told the secret begins, for a rule whose values are weighed; 0 when
    that is not known.
    """

    way: Way
    before: int = 0
    after: int = 0
    literals: tuple[bytes, ...] = ()
    value: int = 0
    split: Split | None = None


class Look(msgspec.Struct, frozen=True):
    """A plan and the expression of it that hyperscan gets."""

    plan: Plan
    expression: bytes = b""


def first_start(expression: re2._Regexp, data: Bytes, low: int, high: int) -> int:
    """Return where the first match between two places begins, -1 when there is none; see `first_span`."""
    return first_span(expression, data, low, high)[0]


def first_span(expression: re2._Regexp, data: Bytes, low: int, high: int) -> tuple[int, int]:
    """Return where the first match between two places begins and ends, -1 twice when there is none.

    What stands outside of them counts as context; they have to be in order and in the data.
    """
    # Without the generator and the object that `search` makes, which take longer than most searches.
    span: tuple[int, int] = expression._regexp.Match(_unanchored(), data, low, high)[0]  # noqa: SLF001
    return span


@cache
def _unanchored() -> object:
    import re2

    return re2._Anchor.UNANCHORED  # noqa: SLF001


def compiled(expression: str, field: str, *, latin: bool = False, captures: bool = True) -> re2._Regexp:
    """Compile an expression for bytes; raises InputError that names the field.

    `latin` says that its bytes are characters of Latin-1 already, as `syntax` has them.
    """
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = MEMORY_MAX
    options.never_capture = not captures
    if len(expression) > EXPRESSION_MAX:
        raise InputError(f"{field}: the expression is longer than {EXPRESSION_MAX} characters", field=field)
    try:
        found = re2.compile(expression.encode("latin-1" if latin else "utf-8"), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "it is refused"
        told = reason.decode("latin-1") if isinstance(reason, bytes) else str(reason)
        raise InputError(f"{field}: the expression is not one of RE2: {told}", field=field) from None
    if found.programsize > PROGRAM_MAX:
        raise InputError(f"{field}: the expression is too large: write shorter repetitions", field=field)
    return found
