"""What an exploration of crash points came to: a table a node, the failures, and a line that repeats each."""

from collections import Counter
from dataclasses import dataclass, field

from scenarios.scenario import BOUNDARIES

Cell = tuple[str, str, str]
"""A node, a boundary, and what passes it."""

_MAX_FAILURES_SHOWN = 10
_NEVER, _UNCOVERED = "·", "NONE"


@dataclass(frozen=True, slots=True)
class CrashFailure:
    """A run whose end was not as it must be. `spec` names exactly that run."""

    spec: str
    complaints: tuple[str, ...]


@dataclass(slots=True)
class CrashReport:
    """`crashes` counts the crashes carried out at each cell; each of `wanted` must have had one.

    `boundaries` counts those that the runs without a crash have passed; `pairs` the pairs of crashes that there are,
    of which `doubles` were tried; `notes` say what was not.
    """

    scenario: str
    definition: str = ""
    cases: list[tuple[str, int]] = field(default_factory=list)
    singles: int = 0
    doubles: int = 0
    pairs: int = 0
    crashes: Counter[Cell] = field(default_factory=Counter)
    wanted: set[Cell] = field(default_factory=set)
    failures: list[CrashFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    elapsed_seconds: float = 0.0

    @property
    def boundaries(self) -> int:
        return sum(passed for _, passed in self.cases)

    @property
    def runs(self) -> int:
        return len(self.cases) + self.singles + self.doubles

    @property
    def uncovered(self) -> list[Cell]:
        return sorted(cell for cell in self.wanted if not self.crashes[cell])

    @property
    def passed(self) -> bool:
        return not self.failures and not self.uncovered

    def render(self) -> list[str]:
        lines = [
            f"{self.scenario}, saga {self.definition or 'unknown'}: {self.boundaries} boundaries in {len(self.cases)}"
            f" cases; {self.singles} runs with one crash, {self.doubles} with two; {self.elapsed_seconds:.0f} s",
            "boundaries a case (path.sagas): " + ", ".join(f"{name} {passed}" for name, passed in self.cases),
        ]
        lines += [*self.notes, *self._pairs()]
        for node in sorted({node for node, _, _ in self.wanted | self.crashes.keys()}):
            lines += ["", *self._table(node)]
        return [*lines, "", *self._failures(), self._verdict()]

    def _pairs(self) -> list[str]:
        if not self.pairs:
            return []
        return [
            f"second crashes: at every boundary that a node passes until all is at rest again, {self.pairs} in all;"
            f" {self.pairs - self.doubles} are the same as another, and passed over:"
            " their node has done nothing since, and was sent nothing"
        ]

    def _table(self, node: str) -> list[str]:
        rows = sorted({label for name, _, label in self.wanted | self.crashes.keys() if name == node}, key=_row_order)
        width = max(map(len, (*rows, f"crashes of {node}")))
        head = f"{f'crashes of {node}':{width}}" + "".join(f"{boundary:>16}" for boundary in BOUNDARIES)
        return [head, *(f"{row:{width}}" + "".join(self._cell(node, b, row) for b in BOUNDARIES) for row in rows)]

    def _cell(self, node: str, boundary: str, row: str) -> str:
        count = self.crashes[node, boundary, row]
        nothing = _UNCOVERED if (node, boundary, row) in self.wanted else _NEVER
        return f"{count or nothing:>16}"

    def _failures(self) -> list[str]:
        lines = []
        for failure in self.failures[:_MAX_FAILURES_SHOWN]:
            lines += [f"FAILED {failure.spec}", *(f"    {complaint}" for complaint in failure.complaints[:5])]
            lines += [f"    repeat: {repeat_line(self.scenario, failure.spec)}"]
        if len(self.failures) > _MAX_FAILURES_SHOWN:
            lines.append(f"... and {len(self.failures) - _MAX_FAILURES_SHOWN} more")
        return lines

    def _verdict(self) -> str:
        verdict = "passed" if self.passed else "failed"
        uncovered = ", ".join(" ".join(cell) for cell in self.uncovered) or "none"
        return f"{verdict}: {len(self.failures)} of {self.runs} runs failed; uncovered boundaries: {uncovered}"


def repeat_line(scenario: str, spec: str) -> str:
    return f"run_sim.py explore {scenario} --crash-points --at '{spec}'"


def _row_order(label: str) -> tuple[int, str]:
    """The steps first, then what starts and tells."""
    kinds = ("do ", "undo ", "start", "answer")
    return next((i for i, kind in enumerate(kinds) if label.startswith(kind)), len(kinds)), label
