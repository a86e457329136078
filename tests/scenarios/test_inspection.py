"""`inspect`: what it tells of a run's directory is what the coordinator has saved there."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import run_sim
from actors.ids import new_id
from actors.state import Cancel, TimedOut, Verb
from actors.supervisor import COORDINATOR_TABLES
from broker.codec import pack
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import CorruptError
from persistence.opening import META, SCHEMA_KEY
from persistence.transaction import Transaction
from scenarios import inspection
from scenarios.inspection import Inspector
from scenarios.inspection_text import inspect
from scenarios.inspection_words import JSON, MERMAID
from scenarios.scenario import COORDINATOR, ScenarioError
from tests.scenarios.played import COMPENSATED, COMPLETED, NOW, PARKED, RUNNING, STALLED, Coordinator, one_of_each


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return one_of_each(tmp_path)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: NOW + 1)


def as_json(data: Path, saga_id: str | None = None, **wanted: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspect(data, saga_id, form=JSON, **wanted))
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
    text = inspect(data, state=state)
    assert all(saga_id in text for saga_id in expected)
    assert (f"no saga is {state}" in text) == (not expected)


def test_limit(data: Path) -> None:
    """No table is longer than the limit, and the counts are those of all."""
    found = as_json(data, limit=2)
    assert len(found["sagas"]) == 2
    assert found["counts"]["active"] == 3
    assert "latest  2 of 5; --limit shows more" in inspect(data, limit=2)


@pytest.mark.parametrize(("since_seconds", "is_stalled_in"), [(1.0, False), (60.0, False), (61.0, True)])
def test_since(data: Path, since_seconds: float, is_stalled_in: bool) -> None:
    """`--since` leaves only what has changed in that time, in the lists as in the counts."""
    found = as_json(data, since_seconds=since_seconds)
    expected = {RUNNING, PARKED, COMPLETED, COMPENSATED, *([STALLED] if is_stalled_in else [])}
    assert {row["saga_id"] for row in found["sagas"]} == expected
    assert found["counts"]["active"] + found["counts"]["finished"] == len(expected)
    assert len(found["stalled"]) == is_stalled_in


def test_since_with_a_state(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Filters go together, and what they leave out is said."""
    assert run_sim.main(["inspect", str(data), "--state", "stalled", "--since", "5s"]) == 0
    out = capsys.readouterr().out
    assert "(of those that have changed in the last 5 s)" in out
    assert "no saga that has changed in the last 5 s is stalled" in out


def test_an_unreadable_saga_counts_from_its_parking(data: Path) -> None:
    """A snapshot that cannot be read tells no time: that of its parking stands for it, or that of its creation."""
    parked, other = new_id(NOW - 3600, "parked"), new_id(NOW - 3600, "other")
    for saga_id in (parked, other):
        store(data, partial(snapshots.save, saga_id=saga_id, snapshot=b"\xc1"))
    store(data, lambda tx: snapshots.park(tx, parked, pack([NOW - 10, "not known"])))
    found = as_json(data, state="unreadable", since_seconds=60.0)
    assert [row["saga_id"] for row in found["sagas"]] == [parked]
    assert len(as_json(data, state="unreadable", since_seconds=7200.0)["sagas"]) == 2


def test_overview_text(data: Path) -> None:
    """People read counts, parked sagas with the reason, and a glyph a step."""
    text = inspect(data)
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
    """The timeline is a table: number, offset, how long it took, step, attempt, result, phase, and what followed."""
    lines = inspect(data, COMPENSATED).splitlines()
    refusal = next(line for line in lines if line.lstrip().startswith("4 ") and "refused" in line)
    words = ["4", "+0.030", "s", "30.0", "ms", "authorize", "1", "refused", "compensating"]
    assert refusal.split()[: len(words)] == words
    assert refusal.endswith("failing · sent undo open, undo reserve, undo prepare · no")
    assert any(line.split()[:4] == ["prepare", "○", "undone", "0"] for line in lines)


def test_life_as_bars(data: Path) -> None:
    """Below the table each step has a bar, with how long it was waited for."""
    lines = inspect(data, COMPENSATED).splitlines()
    first = next(i for i, line in enumerate(lines) if line.split() == ["+0.000", "s", "+0.060", "s"])
    bars = [line.split() for line in lines[first + 1 : first + 5]]
    assert [(bar[0], bar[-2:]) for bar in bars] == [
        ("open", ["20.0", "ms"]),
        ("reserve", ["40.0", "ms"]),
        ("authorize", ["30.0", "ms"]),
        ("prepare", ["60.0", "ms"]),
    ]
    assert bars[2][1].endswith("✗")
    assert all(bar[-3].endswith("○") for bar in (bars[0], bars[1], bars[3]))


def test_attempts_as_json(data: Path) -> None:
    """`attempts` holds what was asked, from when to when, and what came of it; a transition says how long it took."""
    life = as_json(data, COMPENSATED)
    asked = {(one["step"], one["verb"]): one for one in life["attempts"]}
    assert len(asked) == len(life["attempts"]) == 7
    assert asked["authorize", "do"]["outcome"] == "refused"
    assert asked["authorize", "do"]["duration_seconds"] == pytest.approx(0.03)
    assert asked["prepare", "do"]["outcome"] == "unknown"
    assert asked["prepare", "undo"]["outcome"] == "done"
    assert life["timeline"][0]["took_seconds"] is None
    assert life["timeline"][3]["took_seconds"] == pytest.approx(0.03)


def test_life_as_mermaid(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--mermaid` prints the messages between the coordinator and the services."""
    assert run_sim.main(["inspect", str(data), COMPENSATED, "--mermaid"]) == 0
    assert capsys.readouterr().out == inspect(data, COMPENSATED, form=MERMAID) + "\n"
    lines = inspect(data, COMPENSATED, form=MERMAID).splitlines()
    assert lines[0] == "sequenceDiagram"
    assert "    p3-->>p1: +0.030 s authorize refused: no" in lines


def test_a_stuck_saga_is_drawn_up_to_now(data: Path) -> None:
    """What a saga still waits for lasts until now, and is marked as open."""
    bar = next(line for line in inspect(data, STALLED).splitlines() if line.startswith("reserve  ") and "━" in line)
    assert bar.split()[1].endswith("▸")
    assert bar.split()[-2:] == ["61.00", "s"]


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
        inspect(data, broken)


def test_control_characters(data: Path) -> None:
    """What a service has said moves no cursor."""
    coordinator_reason = "\x1b[2Jboo\nhoo"
    store(data, lambda tx: snapshots.park(tx, RUNNING, b"\x92\x00" + b"\xab" + coordinator_reason.encode()))
    text = inspect(data)
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


@pytest.mark.parametrize(
    ("saga_id", "says"),
    [("nope", "there is no saga nope"), *((bad, "is no saga id") for bad in ("", "ünknown", "x" * 600, "a b"))],
)
def test_unknown_id(data: Path, saga_id: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that no saga has, or can have, ends in one clear line and status 2."""
    assert run_sim.main(["inspect", str(data), saga_id]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((PARKED, "--state", "parked"), "--state goes without a SAGA_ID"),
        ((PARKED, "--since", "1h"), "--since goes without a SAGA_ID"),
        (("--diff", "1", "2"), "--diff goes with a SAGA_ID"),
        (("--mermaid",), "--mermaid goes with a SAGA_ID"),
        ((PARKED, "--mermaid", "--diff", "1", "2"), "--mermaid goes without --diff"),
        ((PARKED, "--diff", "1", "99"), "99 is none"),
        ((PARKED, "--diff", "-1", "2"), "-1 is none"),
    ],
)
def test_bad_words(data: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends in one clear line and status 2."""
    assert run_sim.main(["inspect", str(data), *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("since", ["", "h", "1", "1y", "1.5h", "-1h", "²h"])
def test_bad_since(data: Path, since: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no time ends in one clear line and status 2."""
    with pytest.raises(SystemExit) as exit_:
        run_sim.main(["inspect", str(data), f"--since={since}"])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert "is no time such as 90s, 5m, 1h or 2d" in err
    assert err.count("\n") == 1


def test_damage_of_a_writer(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like damage while a writer commits is not held against the database."""

    def commit_and_complain(*_: object) -> None:
        store(data, lambda tx: snapshots.park(tx, RUNNING, b"\x92\x00\xa1x"))
        raise CorruptError("torn")

    monkeypatch.setattr(inspection, "check", commit_and_complain)
    Inspector.open(data).close()
    monkeypatch.setattr(inspection, "check", lambda *_: (_ for _ in ()).throw(CorruptError("torn")))
    with pytest.raises(CorruptError):
        Inspector.open(data)
