"""`inspect`: what it tells of a run's directory is what the coordinator has saved there."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import run_sim
from actors.definition import Saga
from actors.ids import new_id
from actors.record import Record, change, new_record, save
from actors.state import Answered, Begin, Cancel, Event, Outcome, TimedOut, Verb, waiting_for
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import CorruptError
from persistence.opening import META, SCHEMA_KEY
from persistence.transaction import Transaction
from scenarios import inspection
from scenarios.inspection import Inspector
from scenarios.inspection_text import inspect
from scenarios.scenario import COORDINATOR, ScenarioError
from scenarios.serving import COORDINATOR_TABLES
from scenarios.shop.sagas import ORDER

NOW = 1_800_000_000.0
STEPS = [step.name for step in ORDER.steps]
COMPLETED, COMPENSATED, PARKED, STALLED, RUNNING = (new_id(NOW + i, f"s{i}") for i in range(5))
Answer = Callable[[str, Verb], Outcome]


class Coordinator:
    """Plays sagas through the real machine into a real database."""

    def __init__(self, data: Path) -> None:
        (data / "run.json").write_text(json.dumps({"reference": "mixed"}))
        self.environment = Environment.open(data / COORDINATOR, COORDINATOR_TABLES, sync=False)

    def begin(self, saga_id: str, at: float = NOW, saga: Saga = ORDER) -> Record:
        record = new_record(saga, saga_id, {"amount": 4200}, "order", at)
        self.tell(record, Begin(), at)
        return record

    def tell(self, record: Record, event: Event, at: float, value: object = None) -> None:
        done = change(record, ORDER, event, at, value)
        assert done is not None
        self.environment.update(lambda tx: save(tx, record.saga_id, done))

    def play(self, saga_id: str, answer: Answer) -> Record:
        """Answer everything that the saga asks, 10 ms apart, until it asks for nothing more."""
        record, at = self.begin(saga_id), NOW
        while waiting := waiting_for(record.state):
            send, at = waiting[0], at + 0.01
            outcome = answer(STEPS[send.step], send.verb)
            value = "no" if outcome is Outcome.REFUSED else {"at": send.step}
            self.tell(record, Answered(send.step, send.verb, send.round, send.attempt, outcome), at, value)
        return record


def always(_step: str, _verb: Verb) -> Outcome:
    return Outcome.DONE


def refusing(name: str) -> Answer:
    return lambda step, verb: Outcome.REFUSED if step == name and verb is Verb.DO else Outcome.DONE


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with one saga of each kind; its coordinator is gone."""
    coordinator = Coordinator(tmp_path)
    coordinator.play(COMPLETED, always)
    coordinator.play(COMPENSATED, refusing("authorize"))
    coordinator.play(PARKED, refusing("capture"))
    coordinator.begin(STALLED, at=NOW - 60)
    coordinator.begin(RUNNING)
    coordinator.environment.close()
    return tmp_path


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 1)


def as_json(data: Path, saga_id: str | None = None, state: str | None = None, limit: int = 20) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspect(data, saga_id, state=state, limit=limit, as_json=True))
    return found


# --- all sagas -------------------------------------------------------------------------------------------------


def test_counts(data: Path) -> None:
    """Every saga is counted under each of its states."""
    counts = {"active": 3, "finished": 2, "running": 3, "completed": 1, "compensated": 1, "parked": 1, "stalled": 1}
    assert as_json(data)["counts"] == dict(sorted(counts.items()))


def test_overview_order(data: Path) -> None:
    """Those in flight come first, and the newest of each; parked and stalled ones have lists of their own."""
    found = as_json(data)
    assert [row["saga_id"] for row in found["sagas"]] == [RUNNING, STALLED, PARKED, COMPENSATED, COMPLETED]
    assert [row["reason"] for row in found["parked"]] == ["capture refused: no"]
    assert [row["reason"] for row in found["stalled"]] == ["its next event is 58.0 s overdue"]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("parked", [PARKED]),
        ("stalled", [STALLED]),
        ("running", [RUNNING, STALLED, PARKED]),
        ("finished", [COMPENSATED, COMPLETED]),
        ("completed", [COMPLETED]),
        ("draining", []),
    ],
)
def test_state_filter(data: Path, state: str, expected: list[str]) -> None:
    """`--state` leaves only sagas in that state."""
    assert [row["saga_id"] for row in as_json(data, state=state)["sagas"]] == expected
    text = inspect(data, None, state=state, limit=20, as_json=False)
    assert all(saga_id in text for saga_id in expected)
    assert (f"no saga is {state}" in text) == (not expected)


def test_limit(data: Path) -> None:
    """No table is longer than the limit, and the counts are those of all."""
    found = as_json(data, limit=2)
    assert len(found["sagas"]) == 2
    assert found["counts"]["active"] == 3
    assert "latest  2 of 5; --limit shows more" in inspect(data, None, state=None, limit=2, as_json=False)


def test_overview_text(data: Path) -> None:
    """People read counts, parked sagas with the reason, and a glyph a step."""
    text = inspect(data, None, state=None, limit=20, as_json=False)
    assert "3 active · 2 finished · 1 compensated · 1 completed · 3 running · 1 parked · 1 stalled" in text
    parked = next(line for line in text.splitlines() if line.startswith(PARKED))
    assert parked.split()[1:] == ["parked", "1", "s", "●●●●●●!●", "order", "capture", "refused:", "no"]


def test_beside_a_writer(tmp_path: Path) -> None:
    """What a live coordinator commits is seen by the next look, from another process as well."""
    coordinator = Coordinator(tmp_path)
    coordinator.begin(RUNNING)
    command = [sys.executable, run_sim.__file__, "inspect", str(tmp_path), "--json"]
    for count in (1, 2):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["counts"]["active"] == count
        coordinator.begin(STALLED)
    coordinator.environment.close()


# --- one saga --------------------------------------------------------------------------------------------------


def test_life_of_a_compensated_saga(data: Path) -> None:
    """Header, steps and timeline tell why it went back, what was undone, and when."""
    life = as_json(data, COMPENSATED)
    assert life["states"] == ["compensated", "finished"]
    assert life["reason"] == "authorize refused: no"
    assert life["input"] == {"amount": 4200}
    statuses = {line["step"]: line["status"] for line in life["steps"]}
    assert (statuses["reserve"], statuses["authorize"], statuses["confirm"]) == ("undone", "refused", "idle")
    first, last = life["timeline"][0], life["timeline"][-1]
    assert first["sent"] == ["do open", "do reserve", "do authorize", "do prepare"]
    assert (last["phase"], last["notices"]) == ("compensated", ["compensated"])
    assert [entry["sequence"] for entry in life["timeline"]] == list(range(1, life["transitions"] + 1))


def test_life_text(data: Path) -> None:
    """The timeline is a table: offset, event, step, attempt, phase, and what followed."""
    lines = inspect(data, COMPENSATED, state=None, limit=20, as_json=False).splitlines()
    refusal = next(line for line in lines if line.lstrip().startswith("+") and "refused" in line)
    assert refusal.split()[:6] == ["+0.030", "s", "refused", "authorize", "1", "compensating"]
    assert refusal.endswith("failing · sent undo open, undo reserve, undo prepare · no")
    assert any(line.split()[:4] == ["prepare", "○", "undone", "0"] for line in lines)


def test_attempts(tmp_path: Path) -> None:
    """Retries show as attempts, in the steps as in the timeline."""
    coordinator = Coordinator(tmp_path)
    record = coordinator.begin(RUNNING)
    coordinator.tell(record, TimedOut(1, Verb.DO, 0, 1), NOW + 3)
    coordinator.tell(record, Cancel(), NOW + 4, "cancel by an operator")
    coordinator.environment.close()
    life = as_json(tmp_path, RUNNING)
    assert life["timeline"][1] | {"event": "timedout", "step": "reserve", "attempt": 1} == life["timeline"][1]
    assert life["reason"] == "cancel by an operator"
    assert {line["step"]: line["status"] for line in life["steps"]}["reserve"] == "undoing"


def test_unknown_definition(data: Path) -> None:
    """The steps of a saga whose definition is not known here are numbered; nothing is guessed."""
    (data / "run.json").write_text(json.dumps({"reference": "gone.py"}))
    life = as_json(data, COMPLETED)
    assert [line["step"] for line in life["steps"]] == [f"step {i}" for i in range(8)]
    assert life["note"] == "its definition is not the one known here, so its steps are numbered"


def test_unreadable_snapshot(data: Path) -> None:
    """A snapshot that cannot be read is counted as such, and hides no other."""
    broken = new_id(NOW + 9, "broken")
    store(data, lambda tx: snapshots.save(tx, broken, b"\xc1"))
    found = as_json(data)
    assert found["counts"]["unreadable"] == 1
    assert len(found["sagas"]) == 6
    with pytest.raises(ScenarioError, match="not a snapshot"):
        inspect(data, broken, state=None, limit=20, as_json=False)


def test_control_characters(data: Path) -> None:
    """What a service has said moves no cursor."""
    coordinator_reason = "\x1b[2Jboo\nhoo"
    store(data, lambda tx: snapshots.park(tx, RUNNING, b"\x92\x00" + b"\xab" + coordinator_reason.encode()))
    text = inspect(data, None, state=None, limit=20, as_json=False)
    assert "boo hoo" in text
    assert "\x1b" not in text


def store(data: Path, work: Callable[[Transaction], object]) -> None:
    environment = Environment.open(data / COORDINATOR, COORDINATOR_TABLES, sync=False)
    environment.update(work)
    environment.close()


# --- what is wrong ---------------------------------------------------------------------------------------------


def newer(data: Path) -> None:
    store(data, lambda tx: tx.put(META, SCHEMA_KEY, b"99"))


def truncated(data: Path) -> None:
    path = data / COORDINATOR / "data.mdb"
    path.write_bytes(path.read_bytes()[:20_000])


def garbage(data: Path) -> None:
    (data / COORDINATOR / "data.mdb").write_bytes(b"\x5a" * 20_000)


def missing(data: Path) -> None:
    (data / COORDINATOR / "data.mdb").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(newer, "schema 99"), (truncated, "damaged"), (garbage, "damaged"), (missing, "no coordinator's database")],
)
def test_unusable(data: Path, spoil: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that is missing, damaged or newer ends in one clear line and status 2."""
    spoil(data)
    assert run_sim.main(["inspect", str(data)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("saga_id", ["nope", "", "ünknown", "x" * 600])
def test_unknown_id(data: Path, saga_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that no saga has ends in one clear line and status 2."""
    assert run_sim.main(["inspect", str(data), saga_id]) == 2
    assert "there is no saga" in capsys.readouterr().err


def test_bad_words(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends in one clear line and status 2."""
    assert run_sim.main(["inspect", str(data), PARKED, "--state", "parked"]) == 2
    assert "--state goes without a SAGA_ID" in capsys.readouterr().err


def test_damage_of_a_writer(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like damage while a writer commits is not held against the database."""

    def commit_and_complain(*_: object) -> None:
        store(data, lambda tx: snapshots.park(tx, RUNNING, b"\x92\x00\xa1x"))
        raise CorruptError("torn")

    monkeypatch.setattr(inspection, "check", commit_and_complain)
    Inspector(data).close()
    monkeypatch.setattr(inspection, "check", lambda *_: (_ for _ in ()).throw(CorruptError("torn")))
    with pytest.raises(CorruptError):
        Inspector(data)
