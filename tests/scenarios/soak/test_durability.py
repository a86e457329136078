"""The durability matrix: its cells are measured on real processes, and its tables say what was measured."""

import asyncio
import os
from pathlib import Path

import pytest

from scenarios.soak.cells import DISK_LOST, IN_FLIGHT, RESTORED, STRIKES, Outcome, Setting, measure
from scenarios.soak.durability import SETTINGS, is_bad, tables

LOOSE = Setting(lmdb_sync=False, broker_sync=False)
takes_minutes = pytest.mark.skipif(not os.environ.get("SAGASIM_SOAK"), reason="takes a minute: make test-long")


def test_a_killed_process_loses_nothing_that_it_did_not_sync(tmp_path: Path) -> None:
    """The page cache outlives it: with hundreds of orders in flight, none is lost, and nothing happens twice."""
    outcome = asyncio.run(measure("both nodes at once: SIGKILL", LOOSE, tmp_path / "run"))
    assert not is_bad(outcome), outcome
    assert outcome.in_flight >= IN_FLIGHT
    assert outcome.messages > outcome.messages_lost == 0
    assert outcome.works_again_seconds is not None
    assert outcome.all_ended_seconds is not None


@takes_minutes
def test_the_loss_of_the_brokers_disk_loses_messages_and_no_order(tmp_path: Path) -> None:
    """What it had acknowledged is gone, and is asked for again."""
    outcome = asyncio.run(measure("broker: disk lost", SETTINGS[0], tmp_path / "run"))
    assert not is_bad(outcome), outcome
    assert 0 < outcome.messages_lost < outcome.messages


@takes_minutes
def test_the_loss_of_the_coordinators_disk_leaves_orphans(tmp_path: Path) -> None:
    """`check` finds them; their sagas, started again under their ids, leave nothing held and do nothing twice."""
    outcome = asyncio.run(measure(DISK_LOST, SETTINGS[0], tmp_path / "run"))
    assert not is_bad(outcome), outcome
    assert any(text.startswith("check: saga unknown") for text in outcome.said)
    assert not any(text == "held for ever: no orders" for text in outcome.said)


@takes_minutes
def test_a_backup_is_gone_on_with(tmp_path: Path) -> None:
    """Of all orders, those sent after it too, each comes to its end once the clients send theirs again."""
    outcome = asyncio.run(measure(RESTORED, SETTINGS[0], tmp_path / "run"))
    assert not is_bad(outcome), outcome
    assert outcome.all_ended_seconds is not None


def test_the_tables_tell_each_cell() -> None:
    """A row an event, a column a setting; what is wrong stands out; what does not recover is listed."""
    outcomes = [
        Outcome(event, str(setting), in_flight=7, works_again_seconds=1.5, all_ended_seconds=2.5)
        for event in STRIKES
        for setting in SETTINGS
    ]
    outcomes[3].lost = 2
    outcomes.append(Outcome(DISK_LOST, str(SETTINGS[0]), in_flight=9, said=["held for ever: 3 PENDING orders"]))
    lines = tables(outcomes)
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 1 + len(STRIKES)
    assert all(row.count("|") == 2 + len(SETTINGS) for row in rows)
    assert rows[1].count("7 in flight; 1.5 s, 2.5 s") == len(SETTINGS)
    assert rows[1].count("**2 lost**") == 1
    assert f"- {SETTINGS[0]}: 9 in flight; held for ever: 3 PENDING orders" in lines
    assert lines[-1] == "25 cells, 1 of them with an order lost, an effect doubled or a violation"
