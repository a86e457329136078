"""Is a saga's recorded history legal? Rules 4 to 9, checked by code that shares nothing with the machine.

The record is its journal. The machine asks what to do next; this asks of each thing that was done whether it might
be done, from the graph alone, and counts on the way what a batch of lives must have seen at least once.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.definition import Kind, Saga
from actors.record import Entry

_MISSED = ("timedout", "faulted")
_GOES_BACK = "failing"


@dataclass(slots=True)
class History:
    """One saga as its journal tells it. `problems` says what is illegal, `seen` counts what is remarkable."""

    saga_id: str
    saga: Saga
    asked: set[str] = field(default_factory=set)  # steps whose action was asked for
    done: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    undoing: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    missed: set[str] = field(default_factory=set)
    back: bool = False
    forward: bool = False  # the pivot is done
    resumed: bool = False
    end: str = ""
    problems: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def accuse(self, text: str) -> None:
        self.problems.append(f"saga {self.saga_id}: {text}")

    @property
    def pivot(self) -> str:
        return "" if self.saga.pivot is None else self.saga.steps[self.saga.pivot].name


def check_history(saga_id: str, saga: Saga, entries: Sequence[tuple[int, Entry]]) -> History:
    """Go through a journal from its first entry to its last."""
    history = History(saga_id, saga)
    for place, (sequence, entry) in enumerate(entries, start=1):
        if sequence != place:
            history.accuse(f"transition {place} is missing from its journal, which goes on with {sequence}")
            return history
        if history.end:
            history.accuse(f"{entry.event} {entry.step} after it was {history.end}")
        if entry.event == "resume":
            history.resumed = True
        elif entry.round and not history.resumed:
            history.accuse(f"it asks for {entry.step} in round {entry.round}, and nobody has resumed it")
        _hear(history, entry)
        _turn(history, entry)
        for sent in entry.sent:
            _ask(history, sent, entry.phase)
        _finish(history, entry)
    return history


def _hear(history: History, entry: Entry) -> None:
    """What came to be known."""
    step = entry.step
    if entry.event in _MISSED:
        history.missed.add(step)
    if entry.event == "done" and entry.verb == "do":
        history.done.add(step)
        if step in history.missed:
            history.seen["answered after a missed attempt"] += 1
    elif entry.event == "refused" and entry.verb == "do":
        history.refused.add(step)
    elif entry.event == "done" and entry.verb == "undo":
        if step not in history.undoing:
            history.accuse(f"{step} is undone, and nobody asked for that")
        if step not in history.done:
            history.seen["unknown resolved"] += 1
        if step == history.pivot:
            history.seen["unknown pivot went back"] += 1
        history.undone.add(step)
    elif entry.event == "kept":
        if step != history.pivot:
            history.accuse(f"{step} was kept, and is no pivot")
        history.done.add(step)
        history.seen["unknown pivot went forward"] += 1
    if history.pivot and history.pivot in history.done:
        history.forward, history.back = True, False


def _turn(history: History, entry: Entry) -> None:
    """Whether it turns back, and whether it may."""
    if _GOES_BACK not in entry.notices:
        return
    if history.forward:
        history.accuse("it turns back past its pivot")
    elif entry.event not in ("refused", "cancel", *_MISSED):
        history.accuse(f"it turns back for no reason: {entry.event} {entry.step}")
    history.back = True


def _ask(history: History, sent: str, phase: str) -> None:
    verb, _, step = sent.partition(" ")
    index = history.saga.index[step]
    if verb == "do":
        _ask_do(history, step, index, heard_out=phase == "draining" and step in history.asked)
    else:
        _ask_undo(history, step, index)


def _ask_do(history: History, step: str, index: int, *, heard_out: bool) -> None:
    """`heard_out`: another attempt of what was in flight when a saga that drains turned back."""
    steps = history.saga.steps
    if history.back and not heard_out:
        history.accuse(f"it asks for {step} on its way back")
    for needed in history.saga.needs[index]:
        if steps[needed].name not in history.done:
            history.accuse(f"it asks for {step} before {steps[needed].name} is done")
    history.asked.add(step)


def _ask_undo(history: History, step: str, index: int) -> None:
    definition = history.saga.steps[index]
    if not history.back:
        history.accuse(f"it undoes {step} without a refusal, an exhaustion or a cancel")
    if history.forward or definition.kind is Kind.RETRIABLE:
        history.accuse(f"it undoes {step} past the pivot")
    if definition.kind is Kind.PIVOT and step in history.done:
        history.accuse(f"it undoes its pivot {step}, which is done")
    if step not in history.asked:
        history.accuse(f"it undoes {step}, which was never asked for")
    for dependent in history.saga.dependents[index]:
        name = history.saga.steps[dependent].name
        if name in history.asked and name not in history.undone and name not in history.refused:
            history.accuse(f"it undoes {step} before {name}, which depends on it")
    if history.undoing - history.undone - {step}:
        history.seen["parallel undo"] += 1
    history.undoing.add(step)


def _finish(history: History, entry: Entry) -> None:
    notices = entry.notices
    for notice, name in (("parked", "park"), ("cancel-too-late", "cancel too late"), ("unparked", "unparked")):
        if notice in notices:
            history.seen[name] += 1
    if "completed" in notices:
        history.end = "completed"
        missing = [step.name for step in history.saga.steps if step.name not in history.done]
        if missing:
            history.accuse(f"it is completed without {', '.join(missing)}")
    elif "compensated" in notices:
        history.end = "compensated"
        history.seen["compensation"] += 1
        left = sorted(history.asked - history.undone - history.refused)
        if left:
            history.accuse(f"it is compensated, and {', '.join(left)} is not undone")
        if history.forward:
            history.accuse("it is compensated past its pivot")


# --- what the services did ---------------------------------------------------------------------------------------


def check_effects(history: History, effects: Mapping[tuple[str, str], tuple[int, int]]) -> list[str]:
    """A saga's effects against its history. `effects`: (step, do or undo) -> how often, and its place in time."""
    problems = [
        f"{verb} {step} took effect {times} times" for (step, verb), (times, _) in effects.items() if times > 1
    ]
    steps = history.saga.steps
    for i, definition in enumerate(steps):
        step = definition.name
        acted, undid = effects.get((step, "do")), effects.get((step, "undo"))
        if step in history.done and acted is None:
            problems.append(f"{step} is recorded as done and never took effect")
        if history.end == "compensated" and acted is not None and undid is None:
            problems.append(f"it is compensated, and what {step} did stays done")
        if history.end == "completed" and undid is not None:
            problems.append(f"it is completed, and {step} was undone")
        for needed in history.saga.needs[i]:
            before = effects.get((steps[needed].name, "do"))
            if acted is not None and (before is None or before[1] > acted[1]):
                problems.append(f"{step} took effect before {steps[needed].name}")
            undid_before = effects.get((steps[needed].name, "undo"))
            late = acted is not None and (undid is None or undid_before is None or undid[1] > undid_before[1])
            if undid_before is not None and late:
                problems.append(f"{steps[needed].name} was undone before {step}, which depends on it")
    return [f"saga {history.saga_id}: {problem}" for problem in problems]
