"""A run as trace events, the JSON that Perfetto and Chrome's own viewer read. Times are microseconds since 1970, and
virtual ones of a simulation.

A process per saga definition, a thread per saga; one more process, whose only thread has the faults. Slices of a
thread must lie within each other: where attempts overlap otherwise, the saga has further threads of the same name,
numbered.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from scenarios.report.facts import Facts
from scenarios.report.journals import SagaStory
from scenarios.timeline import Attempt

MAX_SAGAS = 20_000  # in one file, the first ones: viewers get slow with more
RUN_PROCESS = 1  # where the faults are, on its main thread: the one of the process's own number
_THREADS_FROM = 1001  # beyond all processes: a viewer takes a thread of its process's number for the main one
Event = dict[str, Any]


def write_trace(out: TextIO, facts: Facts, sagas: Iterable[SagaStory], left_out: int = 0) -> None:
    """Write the JSON object, an event a line."""
    result = facts.result
    about = {
        "scenario": result.scenario, "seed": result.seed, "mode": result.mode, "verdict": result.verdict,
        "again": facts.again, "sagas_left_out": left_out,
    }  # fmt: skip
    out.write('{"displayTimeUnit": "ms", "otherData": ' + json.dumps(about) + ', "traceEvents": [')
    for i, event in enumerate(events(facts, sagas)):
        out.write((",\n" if i else "\n") + json.dumps(event, separators=(",", ":")))
    out.write("\n]}\n")


def events(facts: Facts, sagas: Iterable[SagaStory]) -> Iterator[Event]:
    yield _named("process_name", RUN_PROCESS, RUN_PROCESS, f"run {facts.result.scenario}")
    yield _named("thread_name", RUN_PROCESS, RUN_PROCESS, "faults")
    for fault in facts.faults:
        if fault.at is not None:
            yield {
                "name": fault.text, "cat": "fault", "ph": "i", "s": "g", "ts": _us(fault.at),
                "pid": RUN_PROCESS, "tid": RUN_PROCESS,
            }  # fmt: skip
    processes: dict[str, int] = {}
    thread = _THREADS_FROM
    for saga in sagas:
        if saga.definition not in processes:
            processes[saga.definition] = process = RUN_PROCESS + 1 + len(processes)
            yield _named("process_name", process, process, f"saga {saga.definition}")
        lanes = _lanes(saga.attempts, saga.ended_at(facts.ended_at))
        yield from _saga_events(saga, lanes, processes[saga.definition], thread)
        thread += len(lanes)


def _saga_events(saga: SagaStory, lanes: list[list["_Slice"]], process: int, thread: int) -> Iterator[Event]:
    """The saga's first thread holds the turns of its life."""
    for i, lane in enumerate(lanes):
        name = saga.saga_id if not i else f"{saga.saga_id} ({i + 1})"
        yield _named("thread_name", process, thread + i, name)
        yield from (_slice_event(saga.saga_id, one, process, thread + i) for one in lane)
    for entry in saga.entries:
        for notice in entry.notices:
            yield {
                "name": notice, "cat": "lifecycle", "ph": "i", "s": "t", "ts": _us(entry.at_seconds),
                "pid": process, "tid": thread, "args": {"event": entry.event, "detail": entry.detail},
            }  # fmt: skip


_Slice = tuple[int, int, Attempt]
"""When it began and ended, in microseconds."""


def _lanes(attempts: Iterable[Attempt], until: float) -> list[list[_Slice]]:
    """Share attempts out so that within a lane each two lie apart or one in the other; there is at least one lane."""
    slices = [
        (_us(a.began_at), max(_us(a.began_at), _us(until if a.ended_at is None else a.ended_at)), a) for a in attempts
    ]
    slices.sort(key=lambda one: (one[0], -one[1]))
    lanes = [_Lane()]
    for one in slices:
        lane = next((lane for lane in lanes if lane.has_room(one)), None)
        if lane is None:
            lane = _Lane()
            lanes.append(lane)
        lane.add(one)
    return [lane.slices for lane in lanes]


class _Lane:
    """Slices that are added in the order in which they begin."""

    def __init__(self) -> None:
        self.slices: list[_Slice] = []
        self._open_ends: list[int] = []  # of those that a next one may lie in, the innermost last

    def has_room(self, one: _Slice) -> bool:
        began, ended, _ = one
        while self._open_ends and self._open_ends[-1] <= began:
            self._open_ends.pop()
        return not self._open_ends or ended <= self._open_ends[-1]

    def add(self, one: _Slice) -> None:
        self.slices.append(one)
        self._open_ends.append(one[1])


def _slice_event(saga_id: str, one: _Slice, process: int, thread: int) -> Event:
    began, ended, attempt = one
    return {
        "name": attempt.step if attempt.verb == "do" else f"undo {attempt.step}", "cat": attempt.verb, "ph": "X",
        "ts": began, "dur": ended - began, "pid": process, "tid": thread,
        "args": {
            "saga": saga_id, "attempt": attempt.attempt, "round": attempt.round, "outcome": attempt.outcome or "open",
        },
    }  # fmt: skip


def _named(kind: str, process: int, thread: int, name: str) -> Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}


def _us(seconds: float) -> int:
    return round(1e6 * seconds)
