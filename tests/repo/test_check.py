"""Another process opens the same repository, and is as patient with it."""

from __future__ import annotations

import pickle
from pathlib import Path
from threading import Timer

from pgkeep.format import names
from pgkeep.repo.check import RepositoryAddress
from pgkeep.repo.repository import create_repository
from pgkeep.store.local import LocalStore
from tests.format.samples import StepClock, entropy


def test_a_worker_waits_for_a_repository_that_is_away_for_a_moment(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    repository = create_repository(LocalStore.create(str(root)), StepClock(), "pgkeep", entropy("away"))
    written = repository.store.get(names.REPOSITORY)
    address = pickle.loads(pickle.dumps(RepositoryAddress.of(repository)))
    root.rename(tmp_path / "away")
    back = Timer(0.4, (tmp_path / "away").rename, [root])
    back.start()
    try:
        opened = address.open()
        assert opened.store.get(names.REPOSITORY) == written
    finally:
        back.join()
    assert (opened.id, opened.keys) == (repository.id, repository.keys)
