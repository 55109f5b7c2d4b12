"""Engines of the shipped rules, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyturn.scanner.cache import Cache
from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.open import open_engine


@pytest.fixture(scope="session", params=["hyperscan", "keywords"])
def engine(request: pytest.FixtureRequest, shared_rules_cache: Path) -> Engine:
    """Return an engine of the shipped rules; every test runs with hyperscan and without."""
    return open_engine(cache=Cache(shared_rules_cache / "keyturn"), fallback=request.param == "keywords")
