"""`inspect --diff`: what is different between two transitions of a saga is what they have changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from persistence import journal
from scenarios.inspection_text import inspect
from scenarios.inspection_words import JSON
from scenarios.scenario import COORDINATOR, ScenarioError
from tests.scenarios.played import COMPENSATED, COMPLETED, PARKED, one_of_each, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return one_of_each(tmp_path)


def compared(data: Path, saga_id: str, before: int, after: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspect(data, saga_id, difference=(before, after), form=JSON))
    return found


def test_difference(data: Path) -> None:
    """What is different between two transitions: the saga's state, its steps, its due time; and which they were."""
    found = compared(data, COMPENSATED, 3, 4)
    assert [entry["sequence"] for entry in found["transitions"]] == [4]
    changed = {change["what"]: (change["from"], change["to"]) for change in found["changes"]}
    assert changed["phase"] == ("running", "compensating")
    assert changed["goes back for"] == (None, "authorize refused")
    assert changed["reason"] == (None, "authorize refused: no")
    assert changed["authorize: status"] == ("doing", "refused")
    assert changed["reserve: status"] == ("done", "undoing")
    assert "confirm: status" not in changed
    assert changed["due at"][0] != changed["due at"][1]


def test_difference_of_results(data: Path) -> None:
    """A step's result appears with the transition that brought it, whole."""
    found = compared(data, COMPLETED, 1, 2)
    assert {"what": "open: result", "from": None, "to": {"at": 0}} in found["changes"]


def test_difference_from_the_beginning(data: Path) -> None:
    """Transition 0 is before the first; the last one is what the snapshot says."""
    found = compared(data, PARKED, 0, 9)
    changed = {change["what"]: (change["from"], change["to"]) for change in found["changes"]}
    assert changed["parked"] == ("no", "yes")
    assert changed["capture: status"] == ("idle", "do_refused")
    assert changed["reason"] == (None, "capture refused: no")


def test_difference_text(data: Path) -> None:
    """People read both sides beside each other, below the transitions between them."""
    lines = inspect(data, COMPENSATED, difference=(3, 4)).splitlines()
    assert f"{COMPENSATED}  from transition 3 to 4" in lines
    assert ["authorize:", "status", "doing", "refused"] in [line.split() for line in lines]
    assert "nothing is different" in inspect(data, COMPENSATED, difference=(4, 4))
    back = inspect(data, COMPENSATED, difference=(4, 3)).splitlines()
    assert ["authorize:", "status", "refused", "doing"] in [line.split() for line in back]


def test_difference_needs_the_definition(data: Path) -> None:
    """States are recomputed by the definition only: without it they are not guessed at."""
    (data / "run.json").write_text(json.dumps({"reference": "gone.py"}))
    with pytest.raises(ScenarioError, match="its states cannot be told"):
        inspect(data, COMPENSATED, difference=(1, 2))


def test_difference_needs_the_journal(data: Path) -> None:
    """Nor are they where a transition is missing."""
    write(data, COORDINATOR, lambda tx: tx.delete(journal.JOURNAL, COMPENSATED.encode() + b"\0\0\0\0\2"))
    with pytest.raises(ScenarioError, match="transition 2 is missing"):
        inspect(data, COMPENSATED, difference=(1, 3))
