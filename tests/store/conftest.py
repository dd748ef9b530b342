"""Every test that takes `url` or `store` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from swarm.store import Store

sys.path.append(str(Path(__file__).parent))  # for `store_samples`, which is no test


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """Where there is no store yet, but could be."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/swarm.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url):
    with Store.open(url) as store:
        yield store
