"""A run on a terminal of its own, steered by its keys as a person would."""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import ROOT

PATIENCE_SECONDS = 40.0
# So many orders that some are left to be sent when the keys are heard, however slow the person and quick the run.
STORY = '''"""The bank refuses to capture the first order until someone has mended it: the file `mended` says so."""

from dataclasses import replace
from pathlib import Path

from actors.handlers import Refused, action
from scenarios.scenario import Scenario
from scenarios.shop.domain import SHOP, good, shop_services
from scenarios.shop.payment import PaymentService


class StuckPayment(PaymentService):
    @action
    def capture(self, transaction, command):
        if command.saga_id.endswith("-0000000") and not Path(__file__).with_name("mended").exists():
            raise Refused("the bank is closed")
        return super().capture(transaction, command)


def services(conducts):
    return [StuckPayment() if service.name == "payment" else service for service in shop_services(conducts)]


scenario = Scenario("stuck", story=__doc__, domain=replace(SHOP, services=services), load=good, orders=3000)
'''
# What a shell does: a job of its own in the foreground, and when that is stopped, the terminal is its own.
SHELL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
    os.tcsetpgrp(0, os.getpgrp())
    print("the job is stopped", flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job)
    os.killpg(job, signal.SIGCONT)
os.tcsetpgrp(0, os.getpgrp())
sys.exit(os.waitstatus_to_exitcode(status))
"""
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[@-~]|[=>])")


class Terminal:
    """A terminal, what was written to it, and a job that runs on it."""

    def __init__(self, home: Path, *command: str) -> None:
        self.person, self.program = pty.openpty()
        self.output, self.decoder = "", codecs.getincrementaldecoder("utf-8")()
        self.resize(80, 24)
        self.modes = termios.tcgetattr(self.program)
        environment = os.environ | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL, *command],
            stdin=self.program, stdout=self.program, stderr=self.program,
            cwd=home, env=environment, start_new_session=True,
        )  # fmt: skip

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.program, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.person, keys.encode())

    def read(self) -> None:
        """Take in what has been written."""
        while select.select([self.person], [], [], 0.02)[0]:
            self.output += self.decoder.decode(os.read(self.person, 65536))

    def frame(self) -> list[str]:
        """The lines of the latest whole frame of the dashboard; each begins where the cursor goes home."""
        frames = self.output.split("\x1b[H")
        return [_CONTROL.sub("", line).rstrip("\r") for line in frames[-2].split("\n")] if len(frames) > 2 else []

    def until(self, *words: str) -> list[str]:
        """Wait for a frame that says all of it."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            self.read()
            text = "\n".join(frame := self.frame())
            if all(word in text for word in words):
                return frame
        pytest.fail(f"{words} never came:\n" + "\n".join(self.frame()) + self.output[-500:])

    def until_written(self, words: str) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while words not in self.output:
            assert time.monotonic() < end, self.output[-500:]
            self.read()

    def until_its_end(self) -> int:
        """The job's exit status. It is read to the last: nobody writes to a terminal that does not."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        self.read()
        return self.process.wait(0)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # its session loses its terminal, and its job ends by that
        os.close(self.person)
        os.close(self.program)
        self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "stuck.py").write_text(STORY)
    run = [sys.executable, str(ROOT / "run_sim.py"), "run", "stuck.py", "--seed", "5", "--data", "data"]
    terminal = Terminal(tmp_path, *run, "--json", "result.json")
    yield terminal
    terminal.close()


def seconds_of(frame: list[str]) -> float:
    found = re.search(r"([0-9.]+) s\s*$", frame[0])
    assert found is not None, frame[0]
    return float(found.group(1))


def test_a_run_is_steered_by_its_keys(terminal: Terminal, tmp_path: Path) -> None:
    """The load is held, each node killed or paused, the broker's store deleted, a saga looked at and resumed; the run
    goes on, passes, and tells what keys did. The screen fits its size at any time; the terminal is left as it was.
    """
    terminal.until("of 50 orders in flight", "q quit")
    terminal.press("------")
    begun = seconds_of(terminal.until("load: no new orders", "1 of 0 orders in flight", "1 parked"))
    _harm_each_node(terminal)
    _resize(terminal)
    _look_at_the_parked_saga(terminal)
    _stop_and_go_on(terminal)
    while seconds_of(terminal.until("parked, running")) < begun + 3.5:
        terminal.read()  # a run in which all that is left is parked would be over after three seconds
    (tmp_path / "mended").touch()
    terminal.press("r")
    terminal.until("0 of 0 orders in flight", "resume")
    terminal.press("\x1b")
    terminal.until("↑↓⏎ saga")
    terminal.press("+++++++")
    assert terminal.until_its_end() == 0, terminal.output[-2000:]
    _check_what_is_left(terminal, tmp_path)


def _harm_each_node(terminal: Terminal) -> None:
    terminal.press("c")
    terminal.until("kill coordinator", "coordinator up, 1")
    terminal.press("S")
    terminal.until("pause services for 5 s")
    terminal.press("s")  # what is paused can be killed
    terminal.until("kill services", "services up, 1")
    terminal.press("w")
    terminal.until("kill broker and delete its store")
    terminal.until("broker up, 1", "0 pending")


def _resize(terminal: Terminal) -> None:
    """Each size is filled to the last line, and nothing is wider than it."""
    for columns, rows in ((160, 50), (40, 10), (80, 24)):
        terminal.resize(columns, rows)
        end = time.monotonic() + PATIENCE_SECONDS
        while not (len(frame := terminal.frame()) == rows and len(frame[0]) == columns):
            assert time.monotonic() < end, frame
            terminal.read()
        assert [line for line in frame if len(line) != columns] == []
        assert frame[-1].startswith("q quit")


def _look_at_the_parked_saga(terminal: Terminal) -> None:
    terminal.press("\x1b[B")
    terminal.until("-0000000❯●●●●●●!● parked: capture refused: the bank is closed")
    terminal.press("\r")
    terminal.until("esc back", "what followed", "parked, running", "✗")
    terminal.press("x")
    terminal.until("too late to cancel")


def _stop_and_go_on(terminal: Terminal) -> None:
    """Ctrl-Z gives the terminal to the shell, as it was; afterwards it is ours again, and keys too."""
    shown = terminal.output.count("\x1b[?1049h")
    terminal.press("\x1a")
    terminal.until_written("the job is stopped")
    assert terminal.output.rindex("\x1b[?1049l") > terminal.output.rindex("\x1b[?1049h")
    assert termios.tcgetattr(terminal.program) == terminal.modes
    terminal.press("\n")
    while terminal.output.count("\x1b[?1049h") == shown:
        terminal.read()
    terminal.until("what followed")


def _check_what_is_left(terminal: Terminal, home: Path) -> None:
    assert termios.tcgetattr(terminal.program) == terminal.modes
    last = _CONTROL.sub("", terminal.output[terminal.output.rindex("\x1b[?1049l") :]).replace("\r", "")
    for words in (
        "3000 orders: 3000 completed",
        "s: kill coordinator\n",
        "verdict: passed\n",
        f"data and logs: {home}",
    ):
        assert words in last
    result = json.loads((home / "result.json").read_text())
    did = [fault.partition(" s: ")[2] for fault in result["faults_injected"] if fault.startswith("by key at ")]
    wanted = ["load: no new orders", "kill coordinator", "pause services for 5 s", "kill services"]
    wanted += ["kill broker and delete its store", "load: at most 50 orders under way"]
    assert [words for words in did if words in wanted] == wanted
    assert sum(words.startswith("resume ") for words in did) == 1
    assert (result["verdict"], result["parked"], result["lost"]) == ("passed", 0, 0)
