"""Engines of the shipped rules, opened once."""

from __future__ import annotations

import pytest

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.open import open_engine


@pytest.fixture(scope="session", params=["hyperscan", "keywords"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Return an engine of the shipped rules; every test runs with hyperscan and without."""
    return open_engine(cache=None, fallback=request.param == "keywords")
