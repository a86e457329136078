"""The nodes' processes that a cluster keeps: those that count, and those that have a successor."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass

from scenarios.chaos.faults import Fault
from scenarios.chaos.kill import Kill
from scenarios.kept_broker import RESTART_SECONDS


@dataclass(slots=True)
class Member:
    """One node: its process, and how often it has been started."""

    role: str
    process: asyncio.subprocess.Process | None = None
    fault: Kill | Fault | None = None  # what the process watches for itself
    starts: int = 0
    errors_at: int = 0  # where in its standard error what the process has written begins, in bytes
    failed_starts: int = 0
    down_seconds: float = RESTART_SECONDS
    expected: bool = False  # its death is one of ours
    was_ready: bool = False  # in any of its lives
    task: asyncio.Task[None] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None


@dataclass(slots=True)
class Zombie:
    """A process that has a successor and does not know it. `end` is done when it has ended: True if it was fenced."""

    role: str
    process: asyncio.subprocess.Process
    end: asyncio.Task[bool]


def send_signal(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    """Send a process a signal, unless it has ended or was never begun."""
    if process is not None and process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(number)
