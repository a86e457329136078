"""What a dashboard counts: steps from journals, each transition once; ends by their time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.record import Entry
from actors.state import Answered, Outcome, TimedOut, Verb
from persistence.environment import Environment
from scenarios import library, tally
from scenarios.load import Journey
from scenarios.pace import BIN_SECONDS, Pace, column_seconds, marks
from scenarios.scenario import COORDINATOR, Fate, Request
from scenarios.tally import StepCount, StepTally, count
from scenarios.watching import Stores
from tests.scenarios.played import (
    COMPENSATED,
    COMPLETED,
    NOW,
    PARKED,
    RUNNING,
    STEPS,
    Coordinator,
    Services,
    always,
    refusing,
)
from tests.scenarios.test_timeline import entry
from tests.scenarios.views import load_of, mid_run


def counted(*entries: Entry) -> dict[str, StepCount]:
    counts: dict[str, StepCount] = {}
    for one in entries:
        count(counts, one)
    return counts


def test_what_counts_as_what() -> None:
    """Answers count once; a retry is what was asked again; a pivot that was kept was done; a resume tries again."""
    assert counted(
        entry(0, "begin", sent=("do a", "do b")),
        entry(1, "timedout", "do a", sent=("do a",)),
        entry(2, "faulted", "do a", attempt=2, sent=("do a",)),
        entry(3, "done", "do a", attempt=3),
        entry(4, "refused", "do b", sent=("undo a",)),
        entry(5, "done", "undo a"),
    ) == {"a": StepCount(done=1, retried=2, undone=1), "b": StepCount(refused=1)}
    assert counted(
        entry(0, "timedout", "do pivot", attempt=3, sent=("undo pivot",)),  # out of attempts: that is no retry
        entry(1, "kept", "undo pivot", sent=("do c",)),
        entry(2, "refused", "do c", notices=("parked",)),
        entry(3, "resume", sent=("do c",)),
    ) == {"pivot": StepCount(done=1), "c": StepCount(refused=1, retried=1)}


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    coordinator = Coordinator(tmp_path)
    yield coordinator
    coordinator.environment.close()


def test_each_transition_counts_once(coordinator: Coordinator) -> None:
    """However often one looks while a saga goes on, and when it has ended."""
    found = StepTally()
    record = coordinator.begin(RUNNING)

    def look(*ended: str) -> None:
        with coordinator.environment.read() as tx:
            found.update(tx, ended, {} if ended else {RUNNING: record})

    look()
    assert found.counts == {}
    coordinator.tell(record, TimedOut(0, Verb.DO, 0, 1), NOW)
    look()
    look()
    assert found.counts == {"open": StepCount(retried=1)}
    coordinator.tell(record, Answered(0, Verb.DO, 0, 2, Outcome.DONE), NOW)
    look(RUNNING)
    assert found.counts["open"] == StepCount(done=1, retried=1)
    assert (found.told, found.ended) == (1, 1)


def test_of_many_the_latest_are_read(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look reads so many journals and no more, and it is known how many those are of all."""
    monkeypatch.setattr(tally, "MAX_READ", 1)
    coordinator.play(COMPLETED, always)
    coordinator.play(COMPENSATED, refusing("authorize"))
    found = StepTally()
    with coordinator.environment.read() as tx:
        found.update(tx, [COMPLETED, COMPENSATED], {})
    assert (found.told, found.ended) == (1, 2)
    assert found.counts["authorize"] == StepCount(refused=1)
    assert found.counts["open"] == StepCount(done=1, undone=1)


def test_a_dashboard_is_given_counts_and_ends(tmp_path: Path) -> None:
    """A look at the stores brings what came of all steps, and when the orders of this run ended."""
    coordinator = Coordinator(tmp_path)
    coordinator.play(COMPLETED, always)
    coordinator.play(PARKED, refusing("capture"))
    coordinator.environment.close()
    Services(tmp_path).environment.close()
    stores, view = Stores(library.find("mixed"), tmp_path), mid_run()
    view.detailed, view.pace, view.tally = True, Pace(), StepTally()
    view.load = load = load_of(3, [])
    sent = Request({}, Fate.EITHER)
    load.ended = [
        Journey(0, COMPLETED, sent, 100.0, 0.0, ended_at=100.6, end="completed"),
        Journey(1, "0123456789ab-no", sent, 100.0, 0.0, ended_at=100.7, end="rejected"),
        Journey(2, "0123456789ab-old", sent, 100.0, 0.0, ended_at=100.0, end="completed", ended_before=True),
    ]
    for _ in range(2):
        stores.refresh(view)
    assert view.pace.ends == [0, 0, 2]
    assert (view.tally.told, view.tally.ended) == (1, 1)
    assert [view.tally.counts[step].done for step in STEPS] == [2, 2, 2, 2, 2, 2, 1, 2]
    assert view.tally.counts["capture"].refused == 1
    life = stores.life(PARKED)
    assert life is not None
    assert life.row.reason == "capture refused: no"
    assert stores.life("0123456789ab-no") is None
    stores.close()
    assert stores.life(PARKED) is None
    Environment.open_read_only(tmp_path / COORDINATOR).close()  # nothing of it is left open


# --- ends over time --------------------------------------------------------------------------------------------


def test_rates_are_those_of_whole_columns() -> None:
    """An end counts in its column; the column that has not passed yet is not told."""
    pace = Pace()
    pace.add([0.0, 0.1, 0.3, 1.2, 1.9])
    assert pace.rates(1.4, BIN_SECONDS) == [8, 4, 0, 0, 4]
    assert pace.rates(2.0, 1.0) == [3, 2]
    assert pace.rates(4.0, 1.0) == [3, 2, 0, 0]
    assert Pace().rates(0.0, BIN_SECONDS) == []


def test_columns_double() -> None:
    """A column stands for the shortest time by which the run fits."""
    assert [column_seconds(seconds, 40) for seconds in (0, 10, 10.1, 20, 3600)] == [0.25, 0.25, 0.5, 0.5, 128]
    assert column_seconds(100, 0) == 128


def test_marks() -> None:
    """Each time is counted in its column; what came before the run is in none."""
    assert marks([-3.0, 0.0, 0.9, 1.0, 9.0], 1.0, 3) == [2, 1, 0]
