"""The processes of an exploration: what becomes of it when one of them dies, and of them at Ctrl-C."""

import os
import signal
import time
from pathlib import Path

import pytest

import run_sim
from tests.scenarios.conftest import Sim

DEADLY = """
import os
from dataclasses import replace
from scenarios.shop.domain import SHOP, good
from scenarios.scenario import Scenario

def load(random, number):
    if number == 1 and {parent} != os.getpid():
        {deed}
    return good(random, number)

scenario = Scenario("mine", "", SHOP, load)
"""


def test_a_process_that_dies_is_told_and_not_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that is killed, as by a system short of memory, ends the exploration with one line and status 2."""
    mine = tmp_path / "mine.py"
    mine.write_text(DEADLY.format(parent=os.getpid(), deed="os.kill(os.getpid(), 9)"))
    assert run_sim.main(["explore", str(mine), "--seeds", "8", "--failures", str(tmp_path)]) == 2
    assert capfd.readouterr().err.startswith("sagasim: a process that explores has died")


def test_ctrl_c_ends_it_with_all_its_processes(sim: Sim) -> None:
    """A terminal sends it to all of them: status 130, no traceback, and nobody is left."""
    (sim.home / "mine.py").write_text(DEADLY.format(parent=0, deed="open('lived', 'w').close()"))
    exploration = sim.start("explore", "mine.py", "--seeds", "4000")
    while not (sim.home / "lived").exists():
        assert exploration.poll() is None, exploration.communicate()
        time.sleep(0.01)
    os.killpg(exploration.pid, signal.SIGINT)
    out, _ = exploration.communicate(timeout=30)  # its processes have closed it too
    assert exploration.returncode == 130
    assert "Traceback" not in out
    assert "Process" not in out
