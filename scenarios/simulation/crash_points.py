"""Crash every node at every boundary, restart it, and see that everything ends as it must.

A run without a crash records each boundary that a node passes; then each is crashed at in a run of its own. The
same seed makes the same run, so that a boundary is named by its node and by how often it was passed there before.
With `double` a second crash follows, at each boundary that any node passes in the recovery from the first. That is
over when the world is at rest: every request answered, every saga at its end, every message acknowledged. It is over
no sooner, since what is not acknowledged may come again when all else has ended.

Two crashes of a node are one and the same if it has done nothing between the two that its disk or anyone else could
tell, and was sent nothing: the later one only comes a moment later. It is tried as a single crash; with `double` it
is passed over, as the first and as the second.
"""

import gc
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from actors.definition import Kind, Saga
from scenarios.chaos.trouble import never_refused
from scenarios.scenario import BOUNDARIES, COORDINATOR_NAME, PLACE, Fate, Request, Scenario, ScenarioError
from scenarios.simulation.crash_life import SEED, Life, Passing, Point, live, points_of
from scenarios.simulation.crash_paths import Case, base_request, failing_paths, first_path, laid_over
from scenarios.simulation.crash_report import Cell, CrashFailure, CrashReport
from scenarios.simulation.disk import shared_scratch
from scenarios.simulation.progress import progress
from scenarios.simulation.workers import handed_out, workers

Show = Callable[[str, int, int, str, str], None]
"""Called with what is being done, how many of how many are behind, what is counted, and a word on them."""

_CHUNK: Final = 8


def explore_crash_points(
    scenario: Scenario,
    *,
    double: bool = False,
    workers: int | None = None,
    show: Show | None = None,
    sagas: Sequence[int] = (1, 2),
    saga: str | None = None,
    limit: int | None = None,
) -> CrashReport:
    """Explore a scenario's crash points. `sagas` is how many run at once, in turn; `saga` as for a run's load.

    Stops when `limit` runs have failed.
    """
    began = time.monotonic()
    subject = _Subject(scenario, base_request(scenario, SEED), saga)
    explorer = _Explorer(subject, show or _ignore, workers or os.cpu_count() or 1, limit)
    recordings = list(explorer.record(sagas))
    report = explorer.report
    singles = list(explorer.run("one crash", [(r.case, (p.point,)) for r in recordings for p in r.passings]))
    report.singles = len(singles)
    if double:
        tasks = list(_second_crashes(recordings, singles))
        report.pairs = sum(len(life.passings) for life in singles if not life.complaints)
        report.doubles = sum(1 for _ in explorer.run("two crashes", tasks, brief=True))
    report.elapsed_seconds = time.monotonic() - began
    return report


def main(
    scenario: Scenario, double: bool, at: str = "", reference: str = "", *, say: Callable[[str], None] = print
) -> int:
    """What the command line does: explore, or repeat the one run that `at` names. Returns the exit status.

    `reference` is what the scenario was called on the command line, for the lines that repeat a run.
    """
    if at:
        return _repeat(scenario, at, say)
    with progress(say) as shown:
        report = explore_crash_points(scenario, double=double, show=shown.show)
    report.scenario = reference or scenario.name
    for line in report.render():
        say(line)
    return 0 if report.passed else 1


def repeat(scenario: Scenario, spec: str, saga: str | None = None) -> Life:
    """Run again exactly what a failure's `spec` names. Raises ScenarioError."""
    name, points = points_of(spec)
    subject = _Subject(scenario, base_request(scenario, SEED), saga)
    recorded = subject.live(Case(first_path(subject.request), 1), ())
    found = [case for case in _cases(subject, recorded, (1, 2)) if case.name == name]
    if not found:
        raise ScenarioError(f"there is no case {name!r} of scenario {scenario.name!r}")
    return subject.live(found[0], points)


def _repeat(scenario: Scenario, spec: str, say: Callable[[str], None]) -> int:
    life = repeat(scenario, spec)
    for passing in life.crashed:
        say(f"crashed at {passing.point}, {', '.join(passing.labels)}")
    for passing in life.passings:
        say(f"then {passing.point}, {', '.join(passing.labels)}")
    for complaint in life.complaints:
        say(f"FAILED {complaint}")
    say("failed" if life.complaints else "passed")
    return 1 if life.complaints else 0


# --- exploring -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is explored. It goes to the workers by fork, since scenarios hold functions that cannot be pickled."""

    scenario: Scenario
    request: Request
    saga: str | None
    laid_over: dict[Case, Scenario] = field(default_factory=dict)  # each case's, made once

    def live(self, case: Case, points: Sequence[Point], *, brief: bool = False) -> Life:
        if case not in self.laid_over:
            self.laid_over[case] = laid_over(self.scenario, self.request, case)
        return live(self.laid_over[case], case, points, self.saga, brief=brief)


Task = tuple[Case, tuple[Point, ...]]


class _Explorer:
    """Runs what it is told on several cores, and keeps the report."""

    def __init__(self, subject: _Subject, show: Show, workers: int, limit: int | None) -> None:
        self.report = CrashReport(subject.scenario.name)
        self._subject = subject
        self._show = show
        self._workers = workers
        self._limit = limit

    @property
    def _enough(self) -> bool:
        return self._limit is not None and len(self.report.failures) >= self._limit

    def record(self, sagas: Sequence[int]) -> Iterator[Life]:
        """Run every case without a crash: where there is to crash."""
        subject, report = self._subject, self.report
        first = subject.live(Case(first_path(subject.request), 1), ())
        report.definition = first.definition
        cases = _cases(subject, first, sagas)
        for case in cases:
            life = subject.live(case, ())
            report.cases.append((case.name, len(life.passings)))
            self._judge(life)
            yield life
            if self._enough:
                return
        definition = subject.scenario.domain.sagas.get(first.definition)
        if definition is not None:
            report.wanted = _wanted(subject.scenario, definition, parks=any(case.path.parks for case in cases))
            spared = never_refused(subject.scenario)
            for name in sorted(step.name for step in definition.steps if (step.service, step.action) in spared):
                report.notes.append(f"left out: {name} refused, since its compensation is unconditional")

    def run(self, what: str, tasks: list[Task], *, brief: bool = False) -> Iterator[Life]:
        """Run tasks in their order; `brief` leaves out what only another crash would need."""
        for behind, life in enumerate(self._lives([] if self._enough else tasks, brief), start=1):
            self._judge(life)
            for passing in life.crashed:
                point = passing.point
                self.report.crashes.update((point.node, point.boundary, label) for label in passing.labels)
            self._show(what, behind, len(tasks), "runs", f"{len(self.report.failures)} failed")
            yield life
            if self._enough:
                break

    def _lives(self, tasks: list[Task], brief: bool) -> Iterator[Life]:
        if self._workers == 1:
            yield from (self._subject.live(*task, brief=brief) for task in tasks)
            return
        # The workers are forked: they know of the scratch.
        with shared_scratch(), workers(self._workers, "fork", _adopt, (self._subject, brief)) as pool:
            chunks = deque(handed_out(pool, _live, tasks, _CHUNK))
            while chunks:  # each is let go of when it has been looked at
                yield from chunks.popleft().result()

    def _judge(self, life: Life) -> None:
        if life.complaints:
            self.report.failures.append(CrashFailure(life.spec, tuple(life.complaints)))


_adopted: list[tuple[_Subject, bool]] = []
"""In a worker: what it was forked to explore."""


def _adopt(subject: _Subject, brief: bool) -> None:
    _adopted[:] = [(subject, brief)]
    gc.freeze()  # what is there now stays: only what lives leave behind is worth a look


def _live(tasks: Sequence[Task]) -> list[Life]:
    subject, brief = _adopted[0]
    return [subject.live(*task, brief=brief) for task in tasks]


def _ignore(_what: str, _behind: int, _of: int, _unit: str, _words: str) -> None:
    """Nobody watches."""


# --- what there is to explore --------------------------------------------------------------------------------------


def _cases(subject: _Subject, first: Life, sagas: Sequence[int]) -> list[Case]:
    """The first path and, if that completes a saga, every other one, for so many sagas at once."""
    paths = [first_path(subject.request)]
    definition = subject.scenario.domain.sagas.get(first.definition)
    if definition is not None and paths[0].fate is Fate.COMPLETED:
        paths += failing_paths(definition, never_refused(subject.scenario), first.pivot_after_seconds)
    return [Case(path, count) for count in sagas for path in paths]


def _second_crashes(recordings: Iterable[Life], singles: Iterable[Life]) -> Iterator[Task]:
    """A second crash at every boundary after each that was tried alone, but for repetitions of another."""
    repeated = {(life.case, point) for life in recordings for point in repetitions(life.passings)}
    for life in singles:
        if life.complaints or (life.case, life.points[0]) in repeated:
            continue
        again = repetitions(life.passings)
        yield from ((life.case, (*life.points, p.point)) for p in life.passings if p.point not in again)


def repetitions(passings: Iterable[Passing]) -> set[Point]:
    """The boundaries at which a crash is the same as at their node's boundary before.

    Between what it has done (`after`) and what it is about to do (`before`) a node is seen by nobody; but what it is
    sent meanwhile waits for its ack, and waits for the node itself if it is down by then.
    """
    found = set()
    latest: dict[str, Passing] = {}
    for here in passings:
        before = latest.get(here.point.node, here)
        latest[here.point.node] = here
        did_nothing = before.point.boundary.endswith(".after") and here.point.boundary.endswith(".before")
        if did_nothing and before.deliveries == here.deliveries:
            found.add(here.point)
    return found


def _wanted(scenario: Scenario, definition: Saga, *, parks: bool) -> set[Cell]:
    """Where there must have been a crash: a step's commands at every boundary of its service and the coordinator.

    A coordinator commits what a command follows from, publishes the command, and acknowledges its reply.
    """
    domain = scenario.domain
    wanted = {(domain.entry_service, boundary, f"do {PLACE}") for boundary in BOUNDARIES}
    for step in definition.steps:
        verbs = ("do",) if step.kind is Kind.RETRIABLE else ("do", "undo")
        nodes = (step.service, COORDINATOR_NAME)
        wanted |= {(node, b, f"{verb} {step.name}") for node in nodes for b in BOUNDARIES for verb in verbs}
    wanted |= {(domain.entry_service, b, "start") for b in BOUNDARIES if b.startswith("publish")}
    wanted |= {(COORDINATOR_NAME, b, "answer") for b in BOUNDARIES if b.startswith("publish")}
    wanted |= {(domain.entry_service, b, "answer") for b in BOUNDARIES if not b.startswith("publish")}
    told = ("start", "cancel", "resume") if parks else ("start", "cancel")
    return wanted | {(COORDINATOR_NAME, b, label) for b in BOUNDARIES[4:] for label in told}
