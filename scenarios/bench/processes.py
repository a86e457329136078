"""What Linux knows of a process: the CPU time that it has used, and its memory."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_KIB_A_MB = 1024


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads, to the tick of the kernel's clock (10 ms as a rule)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    """`cpu_seconds` of each process by its name."""
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def own_mb(pid: int) -> float:
    """What it has in memory now for itself: without files, such as its program and its database."""
    return _status_mb(pid, "RssAnon")


def peak_mb(pid: int) -> float:
    """The most of it that has been in memory at a time, the touched pages of its files included."""
    return _status_mb(pid, "VmHWM")


def _status_mb(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) / _KIB_A_MB
