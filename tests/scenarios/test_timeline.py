"""Attempts and their bars: what a saga waited for, from when to when, by its journal."""

import pytest

from actors.record import Entry
from scenarios.bars import bars, legend
from scenarios.diagram import sequence_diagram
from scenarios.glyphs import ASCII, UNICODE
from scenarios.timeline import Attempt, Timeline, timeline


def entry(
    at: float, event: str, what: str = "", *, attempt: int = 1, round_: int = 0, phase: str = "running",
    notices: tuple[str, ...] = (), sent: tuple[str, ...] = (), detail: str = "",
) -> Entry:  # fmt: skip
    """`what` is a verb and a step."""
    verb, _, step = what.partition(" ")
    attempt = attempt if step else 0
    return Entry(at, event, step, verb, round_, attempt, detail, phase, list(notices), list(sent))


def told(*entries: Entry) -> Timeline:
    return timeline(list(enumerate(entries, 1)))


def brief(attempts: list[Attempt]) -> list[tuple[str, int, int, float, float | None, str]]:
    return [(f"{a.verb} {a.step}", a.round, a.attempt, a.began_at, a.ended_at, a.outcome) for a in attempts]


def test_an_answer_ends_an_attempt() -> None:
    """From what was asked to what was answered; the transition says how long that took."""
    found = told(
        entry(1.0, "begin", notices=("started",), sent=("do a", "do b")),
        entry(1.5, "done", "do b"),
        entry(3.0, "done", "do a", phase="completed"),
    )
    assert brief(found.attempts) == [("do a", 0, 1, 1.0, 3.0, "done"), ("do b", 0, 1, 1.0, 1.5, "done")]
    assert found.took == {2: 0.5, 3: 2.0}


def test_a_retry_is_an_attempt_of_its_own() -> None:
    """An attempt that came to nothing ends where the next one begins."""
    found = told(
        entry(0.0, "begin", sent=("do a",)),
        entry(2.0, "timedout", "do a", sent=("do a",)),
        entry(3.0, "faulted", "do a", attempt=2, sent=("do a",)),
        entry(4.0, "done", "do a", attempt=3),
    )
    assert brief(found.attempts) == [
        ("do a", 0, 1, 0.0, 2.0, "timedout"),
        ("do a", 0, 2, 2.0, 3.0, "faulted"),
        ("do a", 0, 3, 3.0, 4.0, "done"),
    ]
    assert found.took == {2: 2.0, 3: 1.0, 4: 1.0}


def test_a_late_answer_to_an_earlier_attempt() -> None:
    """It answers the command: nobody waits for the later attempt any more; and it took since it was asked."""
    found = told(
        entry(0.0, "begin", sent=("do a",)),
        entry(2.0, "timedout", "do a", sent=("do a",)),
        entry(2.5, "done", "do a", attempt=1),
    )
    assert brief(found.attempts)[1] == ("do a", 0, 2, 2.0, 2.5, "done")
    assert found.took[3] == 2.5


def test_interrupted_siblings_are_given_up() -> None:
    """When a step fails, those in flight are given up then, and undone when it is their turn."""
    found = told(
        entry(0.0, "begin", sent=("do a", "do b")),
        entry(1.0, "refused", "do b", phase="compensating", notices=("failing",), sent=("undo a",)),
        entry(2.0, "done", "undo a", phase="compensated"),
    )
    assert brief(found.attempts) == [
        ("do a", 0, 1, 0.0, 1.0, "unknown"),
        ("do b", 0, 1, 0.0, 1.0, "refused"),
        ("undo a", 0, 1, 1.0, 2.0, "done"),
    ]


def test_drained_siblings_are_heard_out() -> None:
    """With `drain` they go on until they are answered."""
    found = told(
        entry(0.0, "begin", sent=("do a", "do b")),
        entry(1.0, "refused", "do b", phase="draining", notices=("failing",)),
        entry(2.0, "done", "do a", phase="compensating", sent=("undo a",)),
    )
    assert brief(found.attempts)[0] == ("do a", 0, 1, 0.0, 2.0, "done")
    assert brief(found.attempts)[2] == ("undo a", 0, 1, 2.0, None, "")


def test_a_pivot_settled_by_its_action() -> None:
    """The late answer to a pivot's action ends both: the action is done after all, and its undo means nothing."""
    found = told(
        entry(0.0, "begin", sent=("do p",)),
        entry(1.0, "cancel", phase="compensating", notices=("failing",), sent=("undo p",)),
        entry(2.0, "done", "do p", notices=("confirmed", "cancel-too-late")),
    )
    assert brief(found.attempts) == [("do p", 0, 1, 0.0, 2.0, "done"), ("undo p", 0, 1, 1.0, 2.0, "unknown")]


def test_resumed_after_a_refusal() -> None:
    """After a refusal a new round begins; after exhaustion the attempts are counted on."""
    found = told(
        entry(0.0, "begin", sent=("do r",)),
        entry(1.0, "refused", "do r", notices=("parked",)),
        entry(9.0, "resume", notices=("unparked",), sent=("do r",)),
        entry(10.0, "timedout", "do r", round_=1, notices=("parked",)),
        entry(20.0, "resume", notices=("unparked",), sent=("do r",)),
    )
    assert brief(found.attempts) == [
        ("do r", 0, 1, 0.0, 1.0, "refused"),
        ("do r", 1, 1, 9.0, 10.0, "timedout"),
        ("do r", 1, 2, 20.0, None, ""),
    ]


def test_a_step_that_was_answered_after_all() -> None:
    """A definite answer that comes when the attempts have run out counts for the last of them."""
    found = told(
        entry(0.0, "begin", sent=("do r",)),
        entry(1.0, "timedout", "do r", notices=("parked",)),
        entry(5.0, "done", "do r", notices=("unparked",)),
    )
    assert brief(found.attempts) == [("do r", 0, 1, 0.0, 5.0, "done")]


def test_held_and_released() -> None:
    """What is asked for again in the same words, after a hold, is the same attempt."""
    found = told(
        entry(0.0, "begin", sent=("do a",)),
        entry(1.0, "hold", notices=("parked",)),
        entry(5.0, "resume", notices=("unparked",), sent=("do a",)),
        entry(6.0, "done", "do a"),
    )
    assert brief(found.attempts) == [("do a", 0, 1, 0.0, 6.0, "done")]


def test_half_a_journal() -> None:
    """Of a journal whose beginning is lost only the attempts are told whose beginning is known."""
    found = told(entry(1.0, "done", "do a", sent=("do b",)), entry(2.0, "done", "do b"))
    assert brief(found.attempts) == [("do b", 0, 1, 1.0, 2.0, "done")]
    assert timeline([]) == Timeline()


# --- bars ------------------------------------------------------------------------------------------------------


def drawn(found: Timeline, columns: int = 21, until: float = 0.0, glyphs: object = ASCII) -> dict[str, str]:
    assert glyphs in (ASCII, UNICODE)
    lines = bars(found.attempts, until, columns, ASCII if glyphs is ASCII else UNICODE)
    assert all(bar.cell_len == columns for _, bar in lines)
    return {step: bar.plain for step, bar in lines}


def test_one_bar_a_step_on_one_scale() -> None:
    """Each step has one line; an attempt spans its time and ends with what came of it."""
    found = told(
        entry(0.0, "begin", sent=("do a", "do b")),
        entry(10.0, "refused", "do b", phase="compensating", notices=("failing",), sent=("undo a",)),
        entry(20.0, "done", "undo a", phase="compensated"),
    )
    assert drawn(found) == {
        "a": "==========?---------o",
        "b": "==========x          ",
    }
    assert drawn(found, glyphs=UNICODE)["a"] == "━━━━━━━━━━?╌╌╌╌╌╌╌╌╌○"


def test_open_attempts_last_until_now() -> None:
    """What is waited for is drawn up to now, and marked as open."""
    found = told(entry(0.0, "begin", sent=("do a", "do b")), entry(5.0, "done", "do a"))
    assert drawn(found, until=20.0) == {"a": "=====#               ", "b": "====================>"}


def test_long_idle_times_are_cut_out() -> None:
    """A day in which nobody was waited for takes one column; without it nothing could be seen of the rest."""
    found = told(
        entry(0.0, "begin", sent=("do r",)),
        entry(10.0, "refused", "do r", notices=("parked",)),
        entry(86_400.0, "resume", notices=("unparked",), sent=("do r",)),
        entry(86_410.0, "done", "do r", round_=1),
    )
    assert drawn(found, columns=23) == {"r": "==========x:==========#"}


@pytest.mark.parametrize("columns", [-5, 0, 10, 11, 400])
def test_any_width_will_do(columns: int) -> None:
    """Whatever the width, each bar has a mark for each attempt's end that does not share its column."""
    found = told(
        entry(0.0, "begin", sent=("do a",)),
        *(entry(1.0 + i, "timedout", "do a", attempt=1 + i, sent=("do a",)) for i in range(50)),
    )
    ((_, bar),) = bars(found.attempts, 60.0, columns, ASCII)
    assert bar.cell_len == max(10, columns)
    assert bar.plain.endswith(">")


def test_all_at_once_is_a_mark() -> None:
    """Attempts without any length are still seen."""
    found = told(entry(0.0, "begin", sent=("do a",)), entry(0.0, "done", "do a"))
    assert drawn(found) == {"a": "#" + " " * 20}
    assert bars([], 0.0, 20, ASCII) == []


def test_the_legend_names_every_mark() -> None:
    """Whatever is drawn is explained."""
    assert legend(ASCII) == (
        "= do  - undo  # done  x refused  o undone  * faulted  ? no answer  > asked  < undo asked  : idle, cut out"
    )


# --- the sequence diagram --------------------------------------------------------------------------------------


def diagram(*entries: Entry) -> list[str]:
    services = {"a": "stock", "p": "bank"}
    return sequence_diagram("order", "shop", 0.0, list(enumerate(entries, 1)), services)


def test_a_sequence_diagram() -> None:
    """Commands go to their services and answers come back; what nobody says is a note."""
    assert diagram(
        entry(0.0, "begin", notices=("started",), sent=("do a",)),
        entry(2.0, "timedout", "do a", sent=("do a",)),
        entry(2.5, "refused", "do a", attempt=2, detail="sold out; sorry #1\n", notices=("failing", "compensated")),
    ) == [
        "sequenceDiagram",
        "    participant p0 as shop",
        "    participant p1 as main",
        "    participant p2 as stock",
        "    p0->>p1: +0.000 s start order",
        "    p1->>p2: +0.000 s do a",
        "    Note over p1: +2.000 s a: no answer",
        "    p1->>p2: +2.000 s do a",
        "    p2-->>p1: +2.500 s a, attempt 2 refused: sold out  sorry  1",
        "    Note over p1: +2.500 s failing, compensated",
    ]


def test_a_diagram_with_a_person_and_strangers() -> None:
    """An operator's word comes from the operator; a step whose service is not known here goes to the services."""
    lines = diagram(
        entry(0.0, "begin", sent=("do z",)),
        entry(1.0, "hold", detail="its actor raised"),
        entry(2.0, "cancel", notices=("failing",), sent=("undo z",)),
        entry(3.0, "done", "undo z"),
    )
    assert "    participant p2 as services" in lines
    assert "    Note over p1: +1.000 s hold its actor raised" in lines
    assert "    p3->>p1: +2.000 s cancel" in lines
    assert lines[-1] == "    p2-->>p1: +3.000 s undo z done"
