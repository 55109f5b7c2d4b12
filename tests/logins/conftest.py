import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.logins.gate import Gate, opened_gate


@pytest.fixture
async def gate(migrated_database_url: str, tmp_path: Path) -> AsyncIterator[Gate]:
    """A founded installation with logins; the test runs on both databases."""
    async with opened_gate(migrated_database_url, tmp_path) as one:
        yield one


@pytest.fixture
async def lone_gate(migrated_file: Path, tmp_path: Path) -> AsyncIterator[Gate]:
    """The same on SQLite alone, for what has nothing to do with the database."""
    path = tmp_path / "lone.db"
    shutil.copy(migrated_file, path)
    async with opened_gate(f"sqlite:///{path}", tmp_path) as one:
        yield one
