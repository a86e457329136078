"""`--trace`: trace events that a viewer can show: a slice an attempt, slices of a track one in the other or apart."""

import io
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from actors.record import Entry
from scenarios.report.facts import Facts, Fault
from scenarios.report.journals import SagaStory, stories
from scenarios.report.trace import write_trace
from scenarios.scenario import Result
from scenarios.timeline import Attempt
from tests.scenarios.played import COMPENSATED, COMPLETED, NOW, PARKED, RUNNING, one_of_each

Events = list[dict[str, Any]]


def trace(sagas: list[SagaStory], faults: list[Fault] | None = None, ended_at: float = NOW + 1) -> dict[str, Any]:
    out = io.StringIO()
    result = Result("shop", 7, "real", len(sagas), verdict="passed")
    write_trace(out, Facts(result, "", "again", [], faults or [], ended_at=ended_at), sagas)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def of(events: Events, **wanted: object) -> Events:
    return [event for event in events if all(event.get(key) == value for key, value in wanted.items())]


def story(*attempts: Attempt) -> SagaStory:
    entry = Entry(NOW, "begin", "", "", 0, 0, "", "running", ["started"], [])
    return SagaStory("saga-1", "order", "running", "", [entry], list(attempts))


def attempt(name: str, began: float, ended: float | None, outcome: str = "done", verb: str = "do") -> Attempt:
    return Attempt(name, verb, 0, 1, NOW + began, None if ended is None else NOW + ended, outcome)


FIELDS = {
    "M": {"name", "ph", "pid", "tid", "args"},
    "X": {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args"},
    "i": {"name", "cat", "ph", "s", "ts", "pid", "tid", "args"},
}


def check_format(events: Events) -> None:
    """Each event is one of the Trace Event Format: its fields and their types; each process and each thread has its
    name, once, before anything happens on it; slices of a thread come by time, the outer ones first."""
    names: list[tuple[str, int, int]] = []
    latest: dict[tuple[int, int], tuple[int, int]] = {}
    for event in events:
        assert {"args"} >= FIELDS[event["ph"]] - event.keys(), event
        assert event.keys() <= FIELDS[event["ph"]], event
        assert all(isinstance(event[text], str) for text in ("name", "cat", "s") if text in event), event
        assert event["name"]
        assert all(type(event[number]) is int for number in ("pid", "tid", "ts", "dur") if number in event), event
        # To Perfetto process 0 and thread 0 are the idle ones.
        assert min(event["pid"], event["tid"], event.get("ts", 1)) > 0, event
        track = event["pid"], event["tid"]
        if event["ph"] == "M":
            assert list(event["args"]) == ["name"], event
            names.append((event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else 0))
            continue
        assert {("process_name", event["pid"], 0), ("thread_name", *track)} <= set(names), f"{event} has no name"
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
        else:
            assert event["dur"] >= 0
            assert latest.get(track, (0, 0)) <= (event["ts"], -event["dur"]), f"{event} comes too late"
            latest[track] = event["ts"], -event["dur"]
    assert len(names) == len(set(names))
    assert {kind for kind, _, _ in names} <= {"process_name", "thread_name"}
    threads = [(process, thread) for kind, process, thread in names if kind == "thread_name"]
    assert len({thread for _, thread in threads}) == len(threads), "a number names one thread only"


def check_tracks(events: Events) -> None:
    """They keep the format, and slices of one track lie apart, or one in the other."""
    check_format(events)
    tracks: dict[tuple[int, int], Events] = defaultdict(list)
    for event in of(events, ph="X"):
        tracks[event["pid"], event["tid"]].append(event)
    for slices in tracks.values():
        slices.sort(key=lambda e: (e["ts"], -e["dur"]))
        for i, one in enumerate(slices):
            for other in slices[i + 1 :]:
                apart = other["ts"] >= one["ts"] + one["dur"]
                assert apart or other["ts"] + other["dur"] <= one["ts"] + one["dur"]


@pytest.fixture
def played(tmp_path: Path) -> dict[str, Any]:
    """One saga of each kind, with a fault among them."""
    ids = [COMPLETED, COMPENSATED, PARKED, RUNNING]
    return trace(list(stories(one_of_each(tmp_path), ids)), [Fault("kill broker", NOW + 0.03)])


def test_a_track_a_saga_under_a_process_a_definition(played: dict[str, Any]) -> None:
    """The sagas' tracks bear their ids; what happened to the run has a process of its own."""
    events: Events = played["traceEvents"]
    processes = [e["args"]["name"] for e in of(events, ph="M", name="process_name")]
    assert processes == ["run shop", "saga order"]
    first = [e["args"]["name"] for e in of(events, ph="M", name="thread_name") if " (" not in e["args"]["name"]]
    assert first == ["faults", COMPLETED, COMPENSATED, PARKED, RUNNING]
    check_tracks(events)


def test_a_slice_an_attempt(played: dict[str, Any]) -> None:
    """Each action and each undo, as long as it was waited for; what is open lasts to the end of the run."""
    slices = of(played["traceEvents"], ph="X")
    undone = [e["name"] for e in slices if e["args"]["saga"] == COMPENSATED and e["cat"] == "undo"]
    assert sorted(undone) == ["undo open", "undo prepare", "undo reserve"]
    open_ = [e for e in slices if e["args"]["outcome"] == "open"]
    assert {e["args"]["saga"] for e in open_} == {RUNNING}
    assert {e["ts"] + e["dur"] for e in open_} == {round(1e6 * (NOW + 1))}
    assert [e["args"]["outcome"] for e in slices if e["args"]["saga"] == PARKED and e["name"] == "capture"] == [
        "refused"
    ]


def test_instants_for_faults_and_for_the_turns_of_a_life(played: dict[str, Any]) -> None:
    """In microseconds of the wall clock; a fault goes through all tracks, a turn belongs to its saga's."""
    events: Events = played["traceEvents"]
    faults, completed = of(events, name="thread_name")[:2]
    assert [(e["name"], e["s"], e["tid"], e["ts"]) for e in of(events, ph="i", cat="fault")] == [
        ("kill broker", "g", faults["tid"], round(1e6 * (NOW + 0.03)))
    ]
    turns = [e["name"] for e in of(events, ph="i", cat="lifecycle", tid=completed["tid"])]
    assert turns == ["started", "confirmed", "completed"]


def test_overlapping_attempts_get_tracks_of_their_own() -> None:
    """Where one begins within another and outlasts it, a viewer would misplace its end: so it lies beside it."""
    crossed = story(
        attempt("a", 0.0, 1.0), attempt("b", 0.0, 0.4), attempt("b", 0.4, 2.0), attempt("c", 0.5, None, "", "undo")
    )
    events: Events = trace([crossed], ended_at=NOW + 3)["traceEvents"]
    check_tracks(events)
    assert [e["args"]["name"] for e in of(events, name="thread_name")][1:] == ["saga-1", "saga-1 (2)", "saga-1 (3)"]
    assert len(of(events, ph="X")) == 4


def test_a_clock_that_was_set_back_gives_no_negative_slice() -> None:
    """An attempt that ended before it began lasts no time."""
    assert [e["dur"] for e in of(trace([story(attempt("a", 1.0, 0.5))])["traceEvents"], ph="X")] == [0]


def test_a_run_without_sagas_is_a_trace_too() -> None:
    """The object tells which run it is."""
    found = trace([])
    assert [e["ph"] for e in found["traceEvents"]] == ["M", "M"]
    assert found["displayTimeUnit"] == "ms"
    assert found["otherData"] == {
        "scenario": "shop", "seed": 7, "mode": "real", "verdict": "passed", "again": "again", "sagas_left_out": 0,
    }  # fmt: skip


def test_tracks_are_numbered_apart() -> None:
    """No two sagas share a track, not even where one has several."""
    ids = [
        e["tid"]
        for e in of(trace([story(attempt("a", 0, 1)), story(attempt("b", 0, 1))])["traceEvents"], name="thread_name")
    ]
    assert all(one < other for one, other in pairwise(ids))
