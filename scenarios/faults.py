"""Crashes from within: a probe at every boundary of a node, and what to do when the named one is reached."""

import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from actors.messages import Command
from broker import codec
from scenarios.scenario import Kill

FIRED_FILE = "faults-fired.log"


def to_text(kill: Kill) -> str:
    """A kill as one word of a command line."""
    return json.dumps(asdict(kill), separators=(",", ":"))


def from_text(text: str) -> Kill:
    """Raises ValueError or TypeError for what `to_text` has not made."""
    return Kill(**json.loads(text))


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
    """Counts what passes a node's boundaries and calls `crash` once when its kill's condition is met."""

    def __init__(self, kill: Kill, crash: Callable[[], None]) -> None:
        self._kill = kill
        self._crash = crash
        self._transitions = 0
        self._sagas: set[str] = set()

    def __call__(self, boundary: str, things: object) -> None:
        if self._kill.after_transitions is not None:
            if boundary == "commit.after" and isinstance(things, Sequence):
                # What a commit is about: a list for each work, an item for each transition.
                self._transitions += sum(len(about) for about in things if isinstance(about, list))
            if self._transitions >= self._kill.after_transitions:
                self._crash()
            return
        if boundary != self._kill.boundary:
            return
        for saga_id, step in concerned(things):
            if self._kill.step in ("", step):
                self._sagas.add(saga_id)
        if len(self._sagas) >= self._kill.occurrence:
            self._crash()


def die(directory: Path, kill: Kill) -> None:
    """Write down that the kill has been carried out, and carry it out, also where nothing can be written."""
    try:
        with (directory / FIRED_FILE).open("a") as fired:
            fired.write(to_text(kill) + "\n")
            fired.flush()
            os.fsync(fired.fileno())
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
