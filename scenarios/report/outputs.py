"""The files that a run is asked to leave, checked before it begins."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from scenarios.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write what; None for what nobody wants."""

    report: Path | None = None
    trace: Path | None = None

    def check(self) -> None:
        """Raises ScenarioError if one of them could not be written."""
        if self.report is not None:
            check_writable("--report", self.report)
            _check_charts()
        if self.trace is not None:
            check_writable("--trace", self.trace)

    @property
    def wanted(self) -> bool:
        return self.report is not None or self.trace is not None


def check_writable(option: str, path: Path) -> None:
    """Raises ScenarioError if a file could not be written there: before a run, not after it."""
    if not path.parent.is_dir():
        raise ScenarioError(f"{option} {path}: there is no such directory")
    if path.is_dir():
        raise ScenarioError(f"{option} {path}: this is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ScenarioError(f"{option} {path}: it cannot be written")


def _check_charts() -> None:
    if find_spec("pygal") is None:
        raise ScenarioError("--report draws with the package pygal, which is not here: install sagasim[report]")
