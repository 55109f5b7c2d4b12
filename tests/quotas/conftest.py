from pathlib import Path

import pytest

from tests.quotas.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A database and no node yet."""
    return World(tmp_path)
