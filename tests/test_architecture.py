"""The shape of the project, held by tests; the direction of imports among the packages is held by `make lint`."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("actors", "broker", "persistence", "scenarios")
CONCRETE = re.compile(r"^(?:from|import) (?:broker\.(?:jetstream|server|simulated)|nats|lmdb)\b", re.MULTILINE)


def test_nothing_imports_the_command_line() -> None:
    """`run_sim` stands above everything: no room knows it."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert not re.search(r"^(?:from|import) run_sim\b", path.read_text(), re.MULTILINE), path


def test_the_engine_knows_no_broker_and_no_database() -> None:
    """`actors/` names neither NATS nor LMDB nor a concrete broker."""
    for path in (ROOT / "actors").rglob("*.py"):
        assert not CONCRETE.search(path.read_text()), path


def test_the_engine_has_no_clock_of_its_own() -> None:
    """`actors/` reads no wall clock, draws no global random number and sleeps nowhere."""
    for path in (ROOT / "actors").rglob("*.py"):
        assert not re.search(
            r"^(?:from|import) (?:time|datetime|random)\b(?! import Random)", path.read_text(), re.M
        ), path
