"""What Valkey (or Redis) is asked to do for limits: two scripts, and what goes into and comes out of them.

    kt:{<workspace>}:<digest>     string  <backlog in us><as of, epoch us>, two doubles: a rate
    kt:{<workspace>}:<digest>     sorted set  slot -> expiry in epoch us: a concurrency limit

The digest is of the counter, its window and its kind: no name, address or owner stands in a key, and its length is
bounded.  The braces are a hash tag, so that all limits of a request live in one hash slot.  Every key expires when it
is whole.  The arithmetic is that of `keyturn.verify.limits`, in microseconds; time is the store's own, so that the
clocks of the nodes do not matter.

One run charges any number of requests of one workspace, one after the other, each all or nothing.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast

import msgspec

from keyturn.storage.valkey_link import LinkError
from keyturn.verify.limits import SLOT_RETRY_SECONDS, STEP_SECONDS, burst_of, new_slot, slack_seconds, unit_seconds
from keyturn.verify.spending import LimitOutcome
from keyturn.wire.verification import LimitReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyturn.verify.spending import LimitDemand

_MICRO: Final = 1_000_000
_PLAIN: Final = re.compile(r"[0-9A-Za-z_~-]{1,64}")
_SLOT: Final = re.compile(r"slot_[0-9A-Za-z]{22}\.([0-9a-f]{32})\.([0-9A-Za-z_~-]{1,64})")

TAKE: Final = """
local input = cmsgpack.unpack(ARGV[1])
local now, step, requests = input[1], input[2], input[3]
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local raws, rates, sets, dirty = {}, {}, {}, {}
for first = 1, #KEYS, 1000 do
  local last = math.min(first + 999, #KEYS)
  for n, raw in ipairs(redis.call('MGET', unpack(KEYS, first, last))) do
    raws[first + n - 1] = raw
  end
end

local function rate(i)
  local found = rates[i]
  if found then return found end
  local raw = raws[i]
  if raw then
    local backlog, at = struct.unpack('<dd', raw)
    local elapsed = now - at
    if elapsed > 0 then
      backlog, at = math.max(0, backlog - elapsed), now
    elseif elapsed < -step then
      at = now
      dirty[i] = true
    end
    found = {backlog, at}
  else
    found = {0, now}
  end
  rates[i] = found
  return found
end

local function set(i, window)
  local found = sets[i]
  if found then return found end
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')
  if last[2] and tonumber(last[2]) > now + window then
    for _, slot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[i], string.format('(%.0f', now + window), '+inf')) do
      redis.call('ZADD', KEYS[i], string.format('%.0f', now + window), slot)
    end
    last = redis.call('ZRANGE', KEYS[i], -1, -1, 'WITHSCORES')
  end
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  found = {redis.call('ZCARD', KEYS[i]), tonumber(first[2] or 0), tonumber(last[2] or 0), {}}
  sets[i] = found
  return found
end

local answers = {}
for r, request in ipairs(requests) do
  local admitted, undo, waits = 1, {}, {}
  for j, d in ipairs(request) do
    local i, unit, burst, slack, cost, enforced, limit, window, slot = unpack(d)
    waits[j] = -1
    if slot == '' then
      local found = rate(i)
      local after = found[1] + cost * unit
      if cost > 0 and after > burst + slack then
        waits[j] = math.max(0, after - burst) + math.max(0, found[2] - now)
        if enforced == 1 then admitted = 0 end
      elseif cost > 0 then
        undo[#undo + 1] = {found, found[1]}
        found[1] = after
        dirty[i] = true
      end
    elseif cost > 0 then
      local found = set(i, window)
      if found[1] >= limit then
        waits[j] = math.max(0, found[2] - now)
        if enforced == 1 then admitted = 0 end
      else
        undo[#undo + 1] = {found, found[1], found[2], found[3], slot}
        found[1] = found[1] + 1
        if found[2] == 0 then found[2] = now + window end
        found[3] = math.max(found[3], now + window)
        found[4][slot] = now + window
      end
    end
  end
  if admitted == 0 then
    for u = #undo, 1, -1 do
      local found, slot = undo[u][1], undo[u][5]
      found[1] = undo[u][2]
      if slot then
        found[2], found[3] = undo[u][3], undo[u][4]
        found[4][slot] = nil
      end
    end
  end
  local answer = {admitted}
  for j, d in ipairs(request) do
    local value, reset
    if d[9] == '' then
      value = rate(d[1])[1]
      reset = value
    else
      local found = set(d[1], d[8])
      value, reset = found[1], math.max(0, found[3] - now)
    end
    answer[#answer + 1] = value
    answer[#answer + 1] = reset
    answer[#answer + 1] = waits[j]
  end
  answers[r] = answer
end

for i in pairs(dirty) do
  local backlog, at = rates[i][1], rates[i][2]
  local life = math.ceil((backlog + math.max(0, at - now) + step) / 1000)
  redis.call('SET', KEYS[i], struct.pack('<dd', backlog, at), 'PX', string.format('%.0f', life))
end
for i, found in pairs(sets) do
  local any = false
  for slot, expiry in pairs(found[4]) do
    redis.call('ZADD', KEYS[i], string.format('%.0f', expiry), slot)
    any = true
  end
  if any then
    redis.call('PEXPIRE', KEYS[i], string.format('%.0f', math.ceil((found[3] - now + step) / 1000)))
  end
end
return cmsgpack.pack(answers)
"""

RELEASE: Final = """
local time = redis.call('TIME')
local now, held = time[1] * 1000000 + time[2], 0
for i, key in ipairs(KEYS) do
  local expiry = redis.call('ZSCORE', key, ARGV[i])
  if expiry then
    redis.call('ZREM', key, ARGV[i])
    if tonumber(expiry) > now then held = held + 1 end
  end
end
return held
"""


_answers = msgspec.msgpack.Decoder(list[list[float]])


def workspace_tag(workspace: str) -> str:
    """Return the workspace as it stands in keys: itself, or a digest of what a hash tag could not hold."""
    return workspace if _PLAIN.fullmatch(workspace) else blake2b(workspace.encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=16_384)
def key_of(workspace: str, counter: str, window_seconds: int, kind: str) -> str:
    """Return the key of a counter."""
    name = f"{kind}\0{window_seconds}\0{counter}".encode("utf-8", "surrogatepass")
    return f"kt:{{{workspace_tag(workspace)}}}:{blake2b(name, digest_size=16).hexdigest()}"


def slot_key(slot: str) -> str | None:
    """Return the key that holds a slot; None for what is no slot of this store."""
    found = _SLOT.fullmatch(slot)
    return None if found is None else f"kt:{{{found[2]}}}:{found[1]}"


class Run:
    """One run of the script `TAKE`: requests of one workspace, and what they are answered."""

    __slots__ = ("_indices", "_requests", "demands", "keys", "slots")

    def __init__(self) -> None:
        """Begin without requests."""
        self.keys: list[str] = []
        self.demands: list[Sequence[LimitDemand]] = []
        self.slots: list[list[str]] = []
        self._indices: dict[str, int] = {}
        self._requests: list[list[tuple[object, ...]]] = []

    def add(self, demands: Sequence[LimitDemand]) -> None:
        """Add one request; it must not be empty."""
        slots: list[str] = []
        self.demands.append(demands)
        self.slots.append(slots)
        self._requests.append([self._encode(demand, slots) for demand in demands])

    def argument(self, at: float | None) -> bytes:
        """Return what the script reads; `at` None is the store's own time, anything else is for tests."""
        moment = 0 if at is None else round(at * _MICRO)
        return msgspec.msgpack.encode((moment, round(STEP_SECONDS * _MICRO), self._requests))

    def outcomes(self, reply: object) -> list[LimitOutcome]:
        """Read what the script answered, one outcome for each request; raises LinkError when it makes no sense."""
        try:
            answers = _answers.decode(cast("bytes", reply))
            return [
                _outcome(demands, answer, slots)
                for demands, answer, slots in zip(self.demands, answers, self.slots, strict=True)
            ]
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise LinkError(f"{type(error).__name__}: not an answer to these requests") from None

    def _encode(self, demand: LimitDemand, slots: list[str]) -> tuple[object, ...]:
        rule = demand.rule
        key = key_of(demand.workspace, demand.counter, rule.window_seconds, rule.kind)
        index = self._indices.get(key)
        if index is None:
            self.keys.append(key)
            index = self._indices[key] = len(self.keys)
        slot = ""
        if rule.kind == "concurrency":
            slot = f"{new_slot()}.{key[-32:]}.{workspace_tag(demand.workspace)}"
            slots.append(slot)
        unit, burst = unit_seconds(rule), burst_of(rule)
        return (
            index,
            unit * _MICRO,
            burst * unit * _MICRO,
            slack_seconds(unit) * _MICRO,
            demand.cost,
            0 if rule.mode == "shadow" else 1,
            rule.limit,
            rule.window_seconds * _MICRO,
            slot,
        )


def _outcome(demands: Sequence[LimitDemand], answer: list[float], slots: list[str]) -> LimitOutcome:
    admitted = answer[0] == 1
    reports: list[LimitReport] = []
    kept: list[str] = []
    unused = iter(slots)
    longest, helps = 0.0, True
    for number, demand in enumerate(demands):
        value, reset, waiting = answer[3 * number + 1 : 3 * number + 4]
        rule = demand.rule
        shadow = rule.mode == "shadow"
        exceeded = waiting >= 0
        wait = waiting / _MICRO
        if rule.kind == "concurrency":
            left = rule.limit - int(value)
            slot = next(unused)
            if admitted and demand.cost > 0 and not exceeded:
                kept.append(slot)
            wait = min(wait, SLOT_RETRY_SECONDS)
        else:
            unit, burst = unit_seconds(rule), burst_of(rule)
            left = math.floor((burst * unit + slack_seconds(unit) - value / _MICRO) / unit)
            if exceeded and not shadow and demand.cost > burst:
                helps = False
        if exceeded and not shadow:
            longest = max(longest, wait)
        reports.append(
            LimitReport(
                rule.name,
                rule.limit,
                rule.window_seconds,
                max(0, left),
                reset / _MICRO,
                exceeded=exceeded,
                shadow=shadow,
            )
        )
    return LimitOutcome(admitted, tuple(reports), longest if helps and not admitted else 0.0, tuple(kept))
