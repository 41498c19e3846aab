"""Stacks of real processes for end-to-end tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import Stack


@pytest.fixture
def stack(database_url: str) -> Iterator[Stack]:
    """Stores and the Qdrant owner, on SQLite and on PostgreSQL; a test starts the rest itself."""
    with (
        tempfile.TemporaryDirectory(prefix="ff-e2e-") as folder,
        Stack(Path(folder), database_url=database_url) as made,
    ):
        yield made


@pytest.fixture
def sqlite_stack(sqlite_url: str) -> Iterator[Stack]:
    """The same on SQLite only, for stories in which the database makes no difference."""
    with tempfile.TemporaryDirectory(prefix="ff-e2e-") as folder, Stack(Path(folder), database_url=sqlite_url) as made:
        yield made


POSTGRES_WHEN_THERE_IS_TIME = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.long)], indirect=True
)
"""For long stories whose every statement integration tests run on both databases."""

SQLITE_WHEN_THERE_IS_TIME = pytest.mark.parametrize(
    "database_url", [pytest.param("sqlite", marks=pytest.mark.long), "postgres"], indirect=True
)
"""For those that are about several writers at once."""
