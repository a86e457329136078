"""What a service owes to a command, given its ledger's entry for that saga and step. Pure.

This is what makes any message harmless any number of times and in any order: a command that was answered is
answered again in the same words, an undo without its do leaves a tombstone, and a do that finds the tombstone is
refused.
"""

from enum import IntEnum
from typing import NamedTuple

from actors.state import Outcome, Verb


class Mark(IntEnum):
    """What the ledger holds of a step. The numbers are stored: never renumber them."""

    DONE = 0
    REFUSED = 1
    UNDONE = 2
    TOMBSTONED = 3  # undone before it was done: its do is refused for ever
    UNDO_REFUSED = 4  # done, and its undo was refused


class Entry(NamedTuple):
    """A ledger entry. `round` is that of the refusal; `value` what the action recorded, or why it was refused."""

    mark: Mark
    round: int
    value: object
    undo_reason: str = ""


class Answer(NamedTuple):
    """The answer needs no handler. `entry` is to be written first, if there is one."""

    outcome: Outcome
    value: object
    entry: Entry | None = None


class Run(NamedTuple):
    """The handler is to be run, and its outcome recorded with `done` or `refused`."""

    entry: Entry | None


_FIRST_RUN = Run(None)


def owed(entry: Entry | None, verb: Verb, round_: int, settles: bool) -> Answer | Run:
    """What is owed to a command: an answer from the ledger, or a run of its handler.

    `settles` marks an undo that names no compensation: it asks a pivot's service whether the pivot was done.
    """
    return _owed_to_do(entry, round_) if verb is Verb.DO else _owed_to_undo(entry, round_, settles)


def _owed_to_do(entry: Entry | None, round_: int) -> Answer | Run:
    if entry is None:
        return _FIRST_RUN
    if entry.mark is Mark.DONE or entry.mark is Mark.UNDO_REFUSED:
        return Answer(Outcome.DONE, entry.value)
    if entry.mark is Mark.REFUSED:
        return Run(entry) if round_ > entry.round else Answer(Outcome.REFUSED, entry.value)
    return Answer(Outcome.REFUSED, "this step was undone already")


def _owed_to_undo(entry: Entry | None, round_: int, settles: bool) -> Answer | Run:
    if entry is None:
        return Answer(Outcome.DONE, "tombstoned", Entry(Mark.TOMBSTONED, 0, None))
    if entry.mark is Mark.DONE:
        return Answer(Outcome.KEPT, entry.value) if settles else Run(entry)
    if entry.mark is Mark.UNDO_REFUSED:
        return Run(entry) if round_ > entry.round else Answer(Outcome.REFUSED, entry.undo_reason)
    if entry.mark is Mark.REFUSED:
        return Answer(Outcome.DONE, "tombstoned", Entry(Mark.TOMBSTONED, 0, entry.value))
    return Answer(Outcome.DONE, None)


def done(verb: Verb, entry: Entry | None, value: object) -> Entry:
    """The entry after a handler has run: the action's result is kept for its compensation."""
    if verb is Verb.DO:
        return Entry(Mark.DONE, 0, value)
    return Entry(Mark.UNDONE, 0, entry.value if entry is not None else None)


def refused(verb: Verb, round_: int, entry: Entry | None, reason: str) -> Entry:
    """The entry after a handler has refused; a refused undo leaves the step done."""
    if verb is Verb.DO:
        return Entry(Mark.REFUSED, round_, reason)
    return Entry(Mark.UNDO_REFUSED, round_, entry.value if entry is not None else None, reason)
