"""Metrics in the Prometheus text format: counted cheaply, labelled without key ids.

The hot paths add to plain integers; everything else is read when it is scraped.  There is no global registry.

With several workers a scrape reaches one of them, so each worker leaves a snapshot in a shared folder about once a
second and the one that is scraped answers for all: every sample carries `worker`, the node's id.  Snapshots of
workers that have ended are left out after `FRESH_SECONDS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from prometheus_client.core import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest

from keyturn.kernel.clock import wall

if TYPE_CHECKING:
    from pathlib import Path

FRESH_SECONDS: Final = 10.0
VERIFY_BUCKETS: Final = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

Kind = Literal["counter", "gauge", "histogram"]


class Sample(msgspec.Struct, frozen=True):
    """One number with its labels; `suffix` is `_total`, `_bucket` and the like."""

    suffix: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True):
    """One metric with all its samples."""

    name: str
    help: str
    kind: Kind
    samples: list[Sample]


class _Snapshot(msgspec.Struct, frozen=True):
    worker: str
    at: float
    families: list[Family]


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, and their sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        """Start every bucket at zero."""
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, labels: Mapping[str, str]) -> list[Sample]:
        """Describe it cumulatively, as the format wants."""
        found: list[Sample] = []
        running = 0
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            found.append(Sample("_bucket", {**labels, "le": bound}, running))
        found.append(Sample("_count", dict(labels), running))
        found.append(Sample("_sum", dict(labels), self.total))
        return found


class VerifyMeter:
    """Counts verify outcomes; two additions and a bisection a call."""

    __slots__ = ("codes", "latency")

    def __init__(self) -> None:
        """Start at zero."""
        self.codes: defaultdict[str, int] = defaultdict(int)
        self.latency = Histogram(VERIFY_BUCKETS)

    def observe(self, code: str, seconds: float) -> None:
        """Count one verification."""
        self.codes[code] += 1
        self.latency.observe(seconds)

    def families(self) -> list[Family]:
        """Describe them."""
        outcomes = [Sample("_total", {"code": code}, count) for code, count in sorted(self.codes.items())]
        return [
            Family("keyturn_verify", "Verifications, by verdict.", "counter", outcomes),
            Family("keyturn_verify_seconds", "Time to answer a verification.", "histogram", self.latency.samples({})),
        ]


class RequestMeter:
    """Counts HTTP requests of the routes, by method, route template and status."""

    __slots__ = ("counts", "latency")

    def __init__(self) -> None:
        """Start at zero."""
        self.counts: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self.latency = Histogram(REQUEST_BUCKETS)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.counts[method, route, status] += 1
        self.latency.observe(seconds)

    def families(self) -> list[Family]:
        """Describe them."""
        requests = [
            Sample("_total", {"method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in sorted(self.counts.items())
        ]
        return [
            Family("keyturn_http_requests", "Requests other than verify, by route.", "counter", requests),
            Family("keyturn_http_seconds", "Time to answer them.", "histogram", self.latency.samples({})),
        ]


def counter(name: str, text: str, value: float) -> Family:
    """Describe a counter without labels."""
    return Family(name, text, "counter", [Sample("_total", {}, value)])


def gauge(name: str, text: str, value: float) -> Family:
    """Describe a gauge without labels."""
    return Family(name, text, "gauge", [Sample("", {}, value)])


class Metrics:
    """All metrics of one worker, and the snapshots of its siblings."""

    def __init__(self, worker: str, folder: Path | None = None) -> None:
        """Answer for `worker` alone, or for all workers that share `folder`."""
        self.verify = VerifyMeter()
        self.requests = RequestMeter()
        self._worker = worker
        self._folder = folder
        self._sources: list[Callable[[], Iterable[Family]]] = [self.verify.families, self.requests.families]

    def add(self, source: Callable[[], Iterable[Family]]) -> None:
        """Also read `source` at each scrape."""
        self._sources.append(source)

    def render(self, extra: Iterable[Family] = ()) -> bytes:
        """Answer a scrape; `extra` is what only this scrape knows."""
        snapshots = [_Snapshot(self._worker, 0.0, self._families(extra)), *self._siblings()]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(snapshots))
        return generate_latest(registry)

    def leave_snapshot(self) -> None:
        """Leave this worker's numbers for its siblings; does nothing without a shared folder."""
        if self._folder is None:
            return
        path = self._folder / f"metrics-{self._worker}.json"
        waiting = path.with_suffix(".new")
        waiting.write_bytes(msgspec.json.encode(_Snapshot(self._worker, wall(), self._families(()))))
        waiting.replace(path)

    def forget_snapshot(self) -> None:
        """Remove this worker's snapshot."""
        if self._folder is not None:
            (self._folder / f"metrics-{self._worker}.json").unlink(missing_ok=True)

    def _families(self, extra: Iterable[Family]) -> list[Family]:
        return [*(family for source in self._sources for family in source()), *extra]

    def _siblings(self) -> list[_Snapshot]:
        if self._folder is None:
            return []
        found: list[_Snapshot] = []
        for path in sorted(self._folder.glob("metrics-*.json")):
            try:
                snapshot = msgspec.json.decode(path.read_bytes(), type=_Snapshot)
            except (OSError, msgspec.DecodeError):
                continue
            if snapshot.worker != self._worker and wall() - snapshot.at < FRESH_SECONDS:
                found.append(snapshot)
        return found


class _Collected:
    """Joins the families of several workers, each sample with its worker's label."""

    def __init__(self, snapshots: list[_Snapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Metric]:
        """Describe each family once."""
        joined: dict[str, Metric] = {}
        for snapshot in self._snapshots:
            for family in snapshot.families:
                metric = joined.setdefault(family.name, Metric(family.name, family.help, family.kind))
                for sample in family.samples:
                    labels = {**sample.labels, "worker": snapshot.worker}
                    metric.add_sample(family.name + sample.suffix, labels, sample.value)
        return joined.values()
