from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rules_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs that a test starts keep compiled rules: they are compiled once for all tests of this worker."""
    return tmp_path_factory.mktemp("rules-cache")
