"""`soak` as a user meets it, with real processes, for some seconds; and what it leaves behind."""

import asyncio
import json
import os
import signal
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from persistence.environment import Environment
from scenarios import library
from scenarios.chaos.crash_point import read_fired
from scenarios.chaos.faults import Fault
from scenarios.places import BOUNDARIES, BROKER, COORDINATOR, NODES, SERVICES
from scenarios.soak import commands
from scenarios.soak.soak import Soak, SoakOptions
from scenarios.soak.tally import BY_THE_CLOCK, Tally
from scenarios.stories import SOAKED
from scenarios.watching import Stores
from tests.scenarios.conftest import Sim, until_under_way

LYING_AUDIT = '''"""Its audit finds something wrong whatever the books say."""

from dataclasses import replace

from scenarios.scenario import Findings
from scenarios.shop.domain import shop_findings
from scenarios.stories.happy import scenario as happy


def accuse(tx, settled):
    findings = shop_findings(tx, settled)
    if settled:
        findings.violations.append("the till is one cent short")
    return findings


scenario = replace(happy, name="lying", domain=replace(happy.domain, audit=accuse))
'''


def test_a_short_soak_passes_and_its_table_is_true(sim: Sim) -> None:
    """Orders by their ends are what the stores hold, kills are those that nodes and the run have written down; all
    that was drawn is in the log; and `check` finds nothing."""
    done = sim("soak", "--minutes", "0.2", "--seed", "4", "--data", "data", "--json", "table.json")
    assert done.returncode == 0, done.stdout + done.stderr
    table, data = json.loads((sim.home / "table.json").read_text()), sim.home / "data"
    assert (table["verdict"], table["lost"], table["duplicate_effects"], table["violations"]) == ("passed", 0, 0, [])
    assert table["phases"] >= 1
    _compare_orders(table, data)
    _compare_kills(table, data)
    assert "0 findings" in done.stdout
    assert "lost 0, duplicate effects 0, violations 0" in done.stdout
    assert "again: run_sim.py soak every-reason --minutes 0.2 --seed 4" in done.stdout
    log = (data / "logs" / "run.log").read_text()
    assert log.count("phase 1: plan: ") == _drawn(done.stdout, 1)


def _drawn(output: str, phase: int) -> int:
    """How many faults the line counts that tells what a phase draws."""
    (line,) = [line for line in output.splitlines() if line.startswith(f"phase {phase}: drawn: ")]
    return sum(int(part.split()[0]) for part in line.partition(": drawn: ")[2].split(", "))


def _compare_orders(table: dict[str, Any], data: Path) -> None:
    stores = Stores(library.find(SOAKED), data)
    with closing(stores):
        statuses = stores.audit(settled=True).statuses
        assert stores.all_at_rest()
    assert table["orders"] > 0
    assert table["completed"] == statuses["completed"] > 0
    assert table["compensated"] == statuses["compensated"]
    assert table["orders"] == table["completed"] + table["compensated"] + table["rejected"]


def _compare_kills(table: dict[str, Any], data: Path) -> None:
    fired = [fault for fault in read_fired(data) if isinstance(fault, Fault)]
    at_boundaries = Counter((fault.target, fault.detail) for fault in fired if fault.kind == "boundary")
    kills = table["kills"]
    found = {(node, place): kills[node][place] for node in NODES for place in BOUNDARIES if kills[node][place]}
    assert found == dict(at_boundaries)
    assert kills[BROKER][BY_THE_CLOCK] == sum(fault.kind == "broker-crash" for fault in fired)
    for node in (COORDINATOR, SERVICES):
        assert kills[node][BY_THE_CLOCK] >= 1, "each phase begins with it"
        assert table["recovery"][node]["measured"] <= table["recovery"][node]["starts"]


def test_the_first_failure_ends_a_soak_and_its_data_are_kept(sim: Sim) -> None:
    """Status 1, what is wrong, where the data are, and the line that repeats it; no second phase."""
    (sim.home / "lying.py").write_text(LYING_AUDIT)
    done = sim("soak", "lying.py", "--minutes", "0.1", "--seed", "5")
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "violation: the till is one cent short" in lines
    assert f"again: run_sim.py soak {sim.home / 'lying.py'} --minutes 0.1 --seed 5" in lines
    assert lines[-1] == "verdict: failed"
    assert not any(line.startswith("phase 2") for line in lines)
    (data,) = (sim.home / "sagasim-data").iterdir()
    assert f"data and logs: {data}" in lines
    assert (data / COORDINATOR / "data.mdb").exists()


def test_a_soak_that_is_stopped_shows_its_table_so_far(sim: Sim) -> None:
    """Ctrl-C: status 130, all processes end, and what was counted by then is told."""
    soak = sim.start("soak", "--minutes", "5", "--seed", "6", "--data", str(sim.home / "data"))
    until_under_way(sim.home / "data", soak)
    os.killpg(soak.pid, signal.SIGINT)
    output, _ = soak.communicate(timeout=60)
    assert soak.returncode == 130, output
    assert "Traceback" not in output
    assert "SIGKILLs in" in output
    assert output.splitlines()[-1] == "verdict: stopped"
    for node in (COORDINATOR, SERVICES):
        with closing(Environment.open(sim.home / "data" / node, ())):
            """Nobody holds it."""


def test_what_is_wrong_is_said_in_one_line(sim: Sim) -> None:
    """A directory that holds a run, minutes that are none: status 2."""
    (sim.home / "data").mkdir()
    (sim.home / "data" / "run.json").write_text(
        '{"scenario": "soak", "reference": "mixed", "seed": 1, "orders": 1, "sequential": false, "epoch_seconds": 1}'
    )
    for arguments, words in {
        ("--data", "data"): "holds a run already",
        ("--minutes", "0"): "must be a number of minutes",
        ("--minutes", "nan"): "must be a number of minutes",
        ("no-such-story",): "there is no scenario",
    }.items():
        done = sim("soak", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr


@pytest.mark.parametrize(
    ("violations", "keep", "status", "is_kept"),
    [([], False, 0, False), ([], True, 0, True), (["wrong"] * 25, False, 1, True)],
)
def test_data_stay_if_something_was_wrong_or_they_are_wanted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    violations: list[str],
    keep: bool,
    status: int,
    is_kept: bool,
) -> None:
    """Nobody needs the data of a soak that has passed, unless they were asked for. The first violations are told."""

    async def go(soak: Soak) -> None:
        await asyncio.sleep(0)
        soak.tally.violations += violations

    monkeypatch.setattr(Soak, "go", go)
    data = tmp_path / "data"
    data.mkdir()
    said: list[str] = []
    scenario = library.find("happy")
    command = commands.SoakCommand(scenario, SoakOptions("happy", data, 1, 1.0), keep, tmp_path / "table.json")
    assert commands.soak(command, said.append) == status
    assert data.exists() == is_kept
    assert (f"data and logs: {data}" in said) == is_kept
    assert said.count("violation: wrong") == min(len(violations), commands.SHOWN_VIOLATIONS)
    assert ("and 5 more" in said) == (len(violations) == 25)
    assert json.loads((tmp_path / "table.json").read_text())["violations"] == violations


def test_a_table_before_anything_has_happened() -> None:
    """It can be shown at any time."""
    tally = Tally("happy", 1, 15.0)
    tally.count({}, [], {}, {})
    assert "0 SIGKILLs" in tally.text()
