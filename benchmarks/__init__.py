"""Benchmarks: what `docs/benchmarks.md` reports.  Run them all with `python -m benchmarks`."""
