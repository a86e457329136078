"""The files that a run is asked to leave: checked before it begins, written when it has ended."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scenarios.report.charts import check_charts
from scenarios.report.choosing import choose
from scenarios.report.document import page
from scenarios.report.facts import Facts
from scenarios.report.trace import MAX_SAGAS, write_trace
from scenarios.scenario import ScenarioError


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write what; None for what nobody wants."""

    report: Path | None = None
    trace: Path | None = None

    def check(self) -> None:
        """Raises ScenarioError if one of them could not be written."""
        if self.report is not None:
            check_writable("--report", self.report)
            check_charts()
        if self.trace is not None:
            check_writable("--trace", self.trace)

    @property
    def wanted(self) -> bool:
        return self.report is not None or self.trace is not None

    def write(self, facts: Facts) -> list[str]:
        """Write them; where they are, in lines.

        Raises ScenarioError if a file cannot be written, StorageError if the run's journals cannot be read.
        """
        if self.report is not None:
            html = _page(facts)
            _write("--report", self.report, lambda out: out.write(html))
        if self.trace is not None:
            _write("--trace", self.trace, lambda out: _trace(out, facts))
        written = {"report": self.report, "trace": self.trace}
        return [f"{name}: {path}" for name, path in written.items() if path is not None]


def check_writable(option: str, path: Path) -> None:
    """Raises ScenarioError if a file could not be written there: before a run, not after it."""
    if not path.parent.is_dir():
        raise ScenarioError(f"{option} {path}: there is no such directory")
    if path.is_dir():
        raise ScenarioError(f"{option} {path}: this is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ScenarioError(f"{option} {path}: it cannot be written")


def _page(facts: Facts) -> str:
    chosen = {choice.order.saga_id: choice for choice in choose(facts)}
    told = facts.stories(chosen) if chosen else []
    return page(facts, [(story, chosen[story.saga_id]) for story in told])


def _trace(out: TextIO, facts: Facts) -> None:
    saga_ids = [order.saga_id for order in facts.orders if order.end != "rejected"]
    with closing(facts.stories(saga_ids[:MAX_SAGAS])) as sagas:
        write_trace(out, facts, sagas, max(0, len(saga_ids) - MAX_SAGAS))


def _write(option: str, path: Path, write: Callable[[TextIO], object]) -> None:
    try:
        with path.open("w", encoding="utf-8") as out:
            write(out)
    except OSError as error:
        raise ScenarioError(f"{option} {path}: {error.strerror}") from None
