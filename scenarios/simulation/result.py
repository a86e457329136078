"""What one simulated life came to, and what a batch of lives must have seen."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from actors.definition import Kind, Saga
from scenarios.scenario import Result

SOMETIMES = (
    "compensation",
    "parallel undo",
    "tombstone",
    "duplicate suppressed",
    "redelivery",
    "rehydration",
    "unknown resolved",
    "unknown pivot went forward",
    "unknown pivot went back",
    "cancel too late",
    "park",
    "zombie fenced",
)
"""What a batch of lives must have seen, each at least once: else the checks prove nothing about it."""


@dataclass(slots=True)
class SimResult(Result):
    """What one life came to. `seen` counts what of `SOMETIMES` its sagas can come to; times are virtual."""

    trace_sha256: str = ""
    seen: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    wall_seconds: float = 0.0
    last_lines: list[str] = field(default_factory=list)


def reachable(sagas: Iterable[Saga]) -> list[str]:
    """What of `SOMETIMES` can happen to sagas of these definitions at all."""
    known = list(sagas)
    impossible = set()
    if not any(saga.pivot is not None for saga in known):
        impossible |= {name for name in SOMETIMES if "pivot" in name}
    if not any(_undoes_in_parallel(saga) for saga in known):
        impossible.add("parallel undo")
    return [name for name in SOMETIMES if name not in impossible]


def _undoes_in_parallel(saga: Saga) -> bool:
    """Whether two of its compensatable steps wait for no step of each other."""
    before: list[set[int]] = [set() for _ in saga.steps]
    for _ in saga.steps:  # as often as the longest chain is long
        for i, needs in enumerate(saga.needs):
            before[i] = set(needs).union(*(before[j] for j in needs))
    undone = [i for i, step in enumerate(saga.steps) if step.kind is Kind.COMPENSATABLE]
    return any(i not in before[j] and j not in before[i] for i in undone for j in undone if i < j)
