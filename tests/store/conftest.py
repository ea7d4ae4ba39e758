"""Fixtures of the stores' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgkeep.store.local import LocalStore


@pytest.fixture
def root(tmp_path: Path) -> str:
    LocalStore.create(tmp_path / "store")
    return str(tmp_path / "store")
