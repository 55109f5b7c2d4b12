from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rules_cache(shared_rules_cache: Path) -> Path:
    """Where programs that a test starts keep compiled rules: they are compiled once for all tests of a run."""
    return shared_rules_cache
