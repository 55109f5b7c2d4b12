"""Which rows answer a question about usage: pure.

    asked for key or version                       usage_rollup
    endpoint, country, network or agent            usage_dimension, of the key if a key or an owner is asked for
    owner                                          usage_dimension `owner`
    anything else                                  usage_dimension `keyspace`

Counts are kept by one of endpoint, country, network and agent at a time, and by none of them for a version: what
would need two of them cannot be answered, and is refused rather than guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyturn.errors import InputError
from keyturn.usage.rules import is_shadow, start_of
from keyturn.wire.usage import Dimension, Period

if TYPE_CHECKING:
    from keyturn.wire.usage import UsageFilter

TOLD: Final = (Dimension.ENDPOINT, Dimension.COUNTRY, Dimension.IP_NETWORK, Dimension.USER_AGENT)
BUCKETS_DEFAULT: Final = {Period.MINUTE: 60, Period.HOUR: 48, Period.DAY: 30}
BUCKETS_MAX: Final = 1500
UNTIL_MAX: Final = 253_370_764_800
"""9999-01-01: what comes after the last bucket has to be a time too."""

HOURS_KEPT_SECONDS: Final = 90 * 86_400
_SECONDS: Final = {Period.MINUTE: 60, Period.HOUR: 3600, Period.DAY: 86_400}


@dataclass(frozen=True, slots=True)
class Selection:
    """Where to count, and how to narrow and group it.

    `dimension` None means the rollups of versions.  `of_keys` says that rows of single keys are meant, not those of
    their keyspace as a whole.  `value` narrows to one value of the dimension.  `owner` narrows by the keys that an
    owner has.
    """

    dimension: Dimension | None
    of_keys: bool
    value: str | None
    owner: str | None
    group_by: Dimension | None
    outcome: str | None

    @property
    def shadow(self) -> bool:
        """Whether what would have been is asked for."""
        return self.outcome is not None and is_shadow(self.outcome)


def select_rows(wanted: UsageFilter, group_by: Dimension | None) -> Selection:
    """Decide which rows answer; raises InputError for what is not counted together."""
    asked: set[Dimension] = {
        one for one in Dimension if one is not Dimension.OUTCOME and getattr(wanted, str(one)) is not None
    }
    if group_by is not None:
        asked.add(group_by)
    told = [one for one in TOLD if one in asked]
    if len(told) > 1:
        raise _apart(str(told[0]), str(told[1]))
    if told:
        return _told(wanted, told[0], asked, group_by)
    by_key = {Dimension.KEY, Dimension.VERSION} & asked
    if by_key and group_by is Dimension.OWNER:
        raise _apart("owner", "key")
    if by_key:
        return Selection(None, True, None, wanted.owner, group_by, wanted.outcome)
    dimension = Dimension.OWNER if Dimension.OWNER in asked else Dimension.KEYSPACE
    return Selection(dimension, False, wanted.owner, None, group_by, wanted.outcome)


def _told(wanted: UsageFilter, told: Dimension, asked: set[Dimension], group_by: Dimension | None) -> Selection:
    if Dimension.VERSION in asked:
        raise _apart(str(told), "version")
    if group_by is Dimension.OWNER:
        raise _apart(str(told), "owner")
    of_keys = bool({Dimension.KEY, Dimension.OWNER} & asked)
    value: str | None = getattr(wanted, str(told))
    return Selection(told, of_keys, value, wanted.owner, group_by, wanted.outcome)


def window(period: Period, since: float | None, until: float | None, now: float) -> tuple[int, int]:
    """Return the first bucket and the end of the last one; raises InputError when that is none, or too many."""
    length = _SECONDS[period]
    last = start_of(period, now if until is None else until) + length
    if last > UNTIL_MAX:
        raise InputError("expected a time before the year 9999", field="until")
    first = last - BUCKETS_DEFAULT[period] * length if since is None else start_of(period, since)
    if first >= last:
        raise InputError("expected `since` before `until`", field="since")
    if (last - first) // length > BUCKETS_MAX:
        raise InputError(
            f"expected at most {BUCKETS_MAX} buckets, found {(last - first) // length}",
            field="since",
            hint="ask for a longer period or a shorter range",
        )
    return first, last


def period_of(dimension: Dimension | None, since: float, until: float, now: float) -> Period:
    """Return the period whose buckets fit a window best: the shortest that is kept for it and not too many."""
    length = until - since
    minutes = dimension not in {Dimension.IP_NETWORK, Dimension.USER_AGENT}
    if minutes and length <= BUCKETS_DEFAULT[Period.MINUTE] * 60 and now - since < 86_400:
        return Period.MINUTE
    if length <= BUCKETS_MAX * 3600 and now - since < HOURS_KEPT_SECONDS:
        return Period.HOUR
    return Period.DAY


def require_kept(selection: Selection, period: Period) -> None:
    """Refuse minutes of what is counted by hours only."""
    if period is Period.MINUTE and selection.dimension in {Dimension.IP_NETWORK, Dimension.USER_AGENT}:
        raise InputError(
            f"{selection.dimension} is not counted by the minute", field="period", hint="ask for hours or days"
        )


def _apart(one: str, other: str) -> InputError:
    return InputError(
        f"usage is not counted by {one} and {other} together", field=one, hint=f"ask for {one} or for {other}"
    )
