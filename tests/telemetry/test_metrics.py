from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from keyturn.kernel.clock import wall
from keyturn.telemetry.metrics import FRESH_SECONDS, Metrics, counter, gauge


def _samples(rendered: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(rendered.decode())
        for sample in family.samples
    }


def test_what_is_counted_can_be_scraped() -> None:
    one = Metrics("nod_1")
    one.verify.observe("VALID", 0.00003)
    one.verify.observe("VALID", 0.2)
    one.verify.observe("REVOKED", 9.0)
    one.requests.observe("GET", "/api/v1/keys", 200, 0.002)
    one.add(lambda: [gauge("keyturn_sample", "A sample.", 7), counter("keyturn_things", "Things.", 2)])
    found = _samples(one.render([gauge("keyturn_extra", "Extra.", 1)]))
    worker = ("worker", "nod_1")
    assert found["keyturn_verify_total", (("code", "VALID"), worker)] == 2
    assert found["keyturn_verify_total", (("code", "REVOKED"), worker)] == 1
    assert found["keyturn_verify_seconds_count", (worker,)] == 3
    assert found["keyturn_verify_seconds_sum", (worker,)] == pytest.approx(9.20003)
    assert found["keyturn_verify_seconds_bucket", (("le", "+Inf"), worker)] == 3
    assert found["keyturn_verify_seconds_bucket", (("le", "0.25"), worker)] == 2
    assert found["keyturn_verify_seconds_bucket", (("le", "5e-05"), worker)] == 1
    labels = (("method", "GET"), ("route", "/api/v1/keys"), ("status", "200"), worker)
    assert found["keyturn_http_requests_total", labels] == 1
    assert found["keyturn_sample", (worker,)] == 7
    assert found["keyturn_things_total", (worker,)] == 2
    assert found["keyturn_extra", (worker,)] == 1


def test_any_worker_answers_for_all_that_share_a_folder(tmp_path: Path) -> None:
    one, two = Metrics("nod_1", tmp_path), Metrics("nod_2", tmp_path)
    one.verify.observe("VALID", 0.001)
    two.verify.observe("EXPIRED", 0.001)
    for worker in (one, two):
        worker.leave_snapshot()
    for asked in (one, two):
        found = _samples(asked.render())
        assert found["keyturn_verify_total", (("code", "VALID"), ("worker", "nod_1"))] == 1
        assert found["keyturn_verify_total", (("code", "EXPIRED"), ("worker", "nod_2"))] == 1


def test_a_worker_that_has_ended_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Metrics("nod_1", tmp_path), Metrics("nod_2", tmp_path)
    two.leave_snapshot()
    assert b"nod_2" in one.render()
    two.forget_snapshot()
    assert b"nod_2" not in one.render()
    two.leave_snapshot()
    later = wall() + FRESH_SECONDS + 1
    monkeypatch.setattr("keyturn.telemetry.metrics.wall", lambda: later)
    assert b"nod_2" not in one.render()


def test_a_torn_snapshot_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics-nod_9.json").write_bytes(b'{"worker": "nod_9", ')
    assert b"nod_9" not in Metrics("nod_1", tmp_path).render()
