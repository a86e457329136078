"""Crashes from within: a probe at every boundary of a node, and what to do when the named one is reached."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from actors.messages import Command
from broker import codec
from scenarios.chaos.faults import Fault
from scenarios.chaos.kill import Kill

FIRED_FILE = "faults-fired.log"


def to_text(fault: Kill | Fault) -> str:
    """A fault as one word of a command line."""
    return json.dumps(asdict(fault), separators=(",", ":"))


def from_text(text: str) -> Kill | Fault:
    """Raises ValueError or TypeError for what `to_text` has not made."""
    fields = json.loads(text)
    return Fault(**fields) if "kind" in fields else Kill(**fields)


def is_internal(fault: Kill | Fault) -> bool:
    """Whether its node itself has to watch for it."""
    return fault.is_internal if isinstance(fault, Kill) else fault.kind == "boundary"


def down_seconds_of(fault: Kill | Fault) -> float:
    return fault.down_seconds if isinstance(fault, Kill) else fault.seconds


def boundary_of(fault: Kill | Fault) -> str:
    """Where it strikes; "" if at no boundary."""
    return (fault.boundary or "") if isinstance(fault, Kill) else fault.detail if fault.kind == "boundary" else ""


def node_of(fault: Kill | Fault) -> str:
    return fault.node if isinstance(fault, Kill) else fault.target


def concerned(things: object) -> list[tuple[str, str]]:
    """The saga and step of each command or reply that passes a boundary, whatever form it has there."""
    if isinstance(things, Command):
        return [(things.saga_id, things.step)]
    if isinstance(things, bytes):
        try:
            return concerned(codec.decode(things))
        except codec.CodecError:
            return []  # a stranger's bytes concern no saga
    if isinstance(things, (list, tuple)):
        if len(things) > 3 and things[1] in ("do", "undo", "reply"):
            return [(str(things[2]), str(things[3]))]
        return [pair for thing in things for pair in concerned(thing)]
    if hasattr(things, "payload"):
        return concerned(things.payload)
    return []


class CrashPoint:
    """Counts what passes a node's boundaries and calls `crash` once when its fault's condition is met."""

    def __init__(self, fault: Kill | Fault, crash: Callable[[], None]) -> None:
        self._fault = fault
        self._crash = crash
        self._transitions = 0
        self._passages = 0
        self._sagas: set[str] = set()

    def __call__(self, boundary: str, things: object) -> None:
        fault = self._fault
        if isinstance(fault, Fault):
            due = self._passes(fault, boundary)
        elif fault.after_transitions is not None:
            due = self._counts(fault.after_transitions, boundary, things)
        else:
            due = boundary == fault.boundary and self._concerns(fault, things)
        if due:
            self._crash()

    def _passes(self, fault: Fault, boundary: str) -> bool:
        self._passages += boundary == fault.detail
        return self._passages >= fault.count

    def _counts(self, transitions: int, boundary: str, things: object) -> bool:
        if boundary == "commit.after" and isinstance(things, Sequence):
            # What a commit is about: a list for each work, an item for each transition.
            self._transitions += sum(len(about) for about in things if isinstance(about, list))
        return self._transitions >= transitions

    def _concerns(self, kill: Kill, things: object) -> bool:
        for saga_id, step in concerned(things):
            if kill.step in ("", step):
                self._sagas.add(saga_id)
        return len(self._sagas) >= kill.occurrence


# --- what has been carried out in a run's directory, so that a resumed run does not do it again -------------------


def read_fired(directory: Path) -> list[Kill | Fault]:
    """The faults that have been carried out in this directory so far."""
    path = directory / FIRED_FILE
    if not path.exists():
        return []
    fired = []
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError, TypeError):  # the last line may be cut short by a crash of the machine
            fired.append(from_text(line))
    return fired


def note_fired(directory: Path, fault: Kill | Fault) -> None:
    """Raises OSError."""
    with (directory / FIRED_FILE).open("a") as fired:
        fired.write(to_text(fault) + "\n")
        fired.flush()
        os.fsync(fired.fileno())


def die(directory: Path, fault: Kill | Fault) -> None:
    """Write down that it has been carried out, and carry it out, also where nothing can be written."""
    try:
        note_fired(directory, fault)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
