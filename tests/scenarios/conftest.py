"""Runs of the real thing: each is `run_sim.py` in a process of its own, with real nodes below it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import StorageError
from scenarios.scenario import COORDINATOR
from tests.scenarios.outside import Outside, binaries, start

ROOT = Path(__file__).parent.parent.parent
RUN_TIMEOUT_SECONDS = 150


@dataclass
class Sim:
    """The command line, run in a temporary directory."""

    home: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_SECONDS,
            check=False,
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(ROOT / "run_sim.py"), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own."""
        process = subprocess.Popen(
            self.command(*arguments),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def clean_up(self) -> None:
        """End what a failed test has left running."""
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def passed(self, *arguments: str) -> dict[str, Any]:
        """Run a scenario that must pass, and return the object it writes."""
        done = self("run", *arguments, "--plain", "--data", "data", "--json", "result.json")
        assert done.returncode == 0, done.stdout + done.stderr
        return self.result()

    def result(self) -> dict[str, Any]:
        """The object that `--json result.json` has written."""
        result: dict[str, Any] = json.loads((self.home / "result.json").read_text())
        return result


def until_under_way(data: Path, process: subprocess.Popen[str]) -> None:
    """Wait for the first saga of a run to end, by the coordinator's own store: most of them are under way then.

    A line of progress would come once a second, and a fast machine ends a run of hundreds of orders before it.
    """
    while process.poll() is None:
        try:
            environment = Environment.open_read_only(data / COORDINATOR)
        except StorageError:
            continue  # it does not exist yet
        with closing(environment), environment.read() as tx:
            if snapshots.counts(tx).finished:
                return
    pytest.fail(f"the run ended too early: {process.communicate()[0]}")


def pids_of(data: Path, what: str) -> list[int]:
    """The processes of one node of a run, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if what in words and any(str(data) in word for word in words):
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Sim]:
    sim = Sim(tmp_path)
    yield sim
    sim.clean_up()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    """A broker of somebody else's, which asks for a password."""
    server = start(binaries()["packaged"], tmp_path, "password")
    yield server
    server.stop()


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: services never remember what they have done."""
    monkeypatch.setattr("actors.service.ledger.get", lambda *_args: None)
