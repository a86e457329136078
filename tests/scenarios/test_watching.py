"""What the runner reads of its nodes' stores, and how little of it while nobody looks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.messages import Lifecycle
from actors.record import new_record, to_snapshot
from actors.supervisor import COORDINATOR_TABLES
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import StorageError
from persistence.transaction import Transaction
from scenarios import library
from scenarios.scenario import COORDINATOR
from scenarios.shop.sagas import ORDER
from scenarios.view import RunView
from scenarios.watching import MAX_SHOWN_SAGAS, Stores
from tests.scenarios.played import COMPLETED, RUNNING, Coordinator, always

SAGAS = MAX_SHOWN_SAGAS + 50


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """A coordinator's store with sagas under way, one of them parked; the services have none yet."""

    def write(tx: Transaction) -> None:
        for i in range(SAGAS):
            saga_id = f"0123456789ab-{i:05d}"
            snapshots.save(tx, saga_id, to_snapshot(new_record(ORDER, saga_id, {}, "order", 0.0)))
        snapshots.park(tx, saga_id, b"")

    environment = Environment.open(tmp_path / COORDINATOR, COORDINATOR_TABLES)
    environment.update(write)
    environment.close()
    stores = Stores(library.find("happy"), tmp_path)
    yield stores
    stores.close()


def view(*, detailed: bool) -> RunView:
    return RunView("happy", "", "real", 1, SAGAS, "data", detailed=detailed)


def test_plain_progress_reads_the_coordinator_alone(stores: Stores) -> None:
    """How many sagas are in which phase, and what is parked: no figures, no books, no saga's steps."""
    plain = view(detailed=False)
    stores.refresh(plain)
    assert plain.sagas_by_phase.total() == SAGAS
    assert len(plain.parked) == 1
    assert (plain.latest_states, plain.stalled, plain.counters, plain.books) == ({}, {}, {}, {})


def test_a_dashboard_is_given_all(stores: Stores) -> None:
    """The oldest sagas with their steps, and the services' books."""
    detailed = view(detailed=True)
    with pytest.raises(StorageError, match="services: there is no database here"):
        stores.refresh(detailed)
    assert len(detailed.latest_states) == MAX_SHOWN_SAGAS
    assert detailed.sagas_by_phase.total() == SAGAS


def test_how_a_saga_ended_is_read_where_it_was_not_heard(tmp_path: Path) -> None:
    """Of those that were heard of, the ones that the store has as finished, and how they ended."""
    coordinator = Coordinator(tmp_path)
    coordinator.play(COMPLETED, always)
    coordinator.begin(RUNNING)
    coordinator.environment.close()
    stores, detailed = Stores(library.find("happy"), tmp_path), view(detailed=True)
    for saga_id in (COMPLETED, RUNNING):
        detailed.heard(Lifecycle(saga_id, "order", "started", 0.0, ""))
    with pytest.raises(StorageError, match="services: there is no database here"):
        stores.refresh(detailed)
    stores.close()
    assert set(detailed.latest_states) == {COMPLETED, RUNNING}
    assert detailed.latest_ends == {COMPLETED: "completed"}


def test_a_run_is_at_rest_when_all_has_ended_or_is_parked(stores: Stores) -> None:
    """Sagas under way are not at rest; how a request ended is not known while its saga is not finished."""
    assert not stores.all_at_rest()
    assert list(stores.parked()) == [f"0123456789ab-{SAGAS - 1:05d}"]
    assert stores.look("0123456789ab-00000") == ""
