"""What a node of production is made of, where no figure of a run would show that it is missing."""

import subprocess
import sys
import time
from pathlib import Path

from scenarios.scenario import COORDINATOR
from scenarios.serving import is_ready
from tests.scenarios.conftest import ROOT
from tests.scenarios.outside import Outside

READY_WITHIN_SECONDS = 30.0
COUNTED = """
import gc, sys
freeze, calls = gc.freeze, []
gc.freeze = lambda: (calls.append(1), freeze())
import run_sim
print(run_sim.main(sys.argv[1:]), len(calls))
"""


def test_what_has_come_back_is_kept_from_the_garbage_collector(outside: Outside, tmp_path: Path) -> None:
    """At the node's start, and before each page of unfinished sagas: there is always a first one, if an empty one."""
    words = ["serve", COORDINATOR, "--data", str(tmp_path), *outside.arguments]
    command = [sys.executable, "-c", COUNTED, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        end = time.monotonic() + READY_WITHIN_SECONDS
        while node.poll() is None and time.monotonic() < end and not is_ready(tmp_path, COORDINATOR, node.pid):
            pass
        node.terminate()
        output, _ = node.communicate()
    assert output.split() == ["0", "2"]
