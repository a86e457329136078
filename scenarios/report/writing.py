"""Writes the files that a run was asked to leave, when it has ended."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TextIO

from scenarios.report.choosing import choose
from scenarios.report.document import page
from scenarios.report.facts import Facts
from scenarios.report.outputs import Outputs
from scenarios.report.trace import MAX_SAGAS, write_trace
from scenarios.scenario import ScenarioError


def write(outputs: Outputs, facts: Facts) -> list[str]:
    """Write what is wanted; where it is, in lines.

    Raises ScenarioError if a file cannot be written, StorageError if the run's journals cannot be read.
    """
    if outputs.report is not None:
        html = _page(facts)
        _write("--report", outputs.report, lambda out: out.write(html))
    if outputs.trace is not None:
        _write("--trace", outputs.trace, lambda out: _trace(out, facts))
    written = {"report": outputs.report, "trace": outputs.trace}
    return [f"{name}: {path}" for name, path in written.items() if path is not None]


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
