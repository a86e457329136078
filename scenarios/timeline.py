"""A saga's life as attempts: what was asked of whom, when, and what came of it. From its journal alone, pure.

The journal says what was asked for and what was answered; an attempt is what lies between the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.record import Entry

MISSED = ("timedout", "faulted")  # that attempt came to nothing: nothing is known, or nothing was changed
ANSWERS = ("done", "refused", "kept", *MISSED)
GIVEN_UP = "unknown"  # nobody waits for the answer any more


@dataclass(slots=True)
class Attempt:
    """One attempt of one command. Times are wall clock seconds since 1970.

    It begins with the decision to ask, so a retry's backoff is part of it. `ended_at` is None and `outcome` "" while
    the saga waits; the outcome is a service's answer, "timedout" or "unknown".
    """

    step: str
    verb: str
    round: int
    attempt: int
    began_at: float
    ended_at: float | None = None
    outcome: str = ""

    @property
    def duration_seconds(self) -> float | None:
        return None if self.ended_at is None else self.ended_at - self.began_at


@dataclass(slots=True)
class Timeline:
    """`took` says by a transition's sequence how long the attempt took that it answers."""

    attempts: list[Attempt] = field(default_factory=list)
    took: dict[int, float] = field(default_factory=dict)


def timeline(entries: Sequence[tuple[int, Entry]]) -> Timeline:
    """The attempts of a saga, in the order in which they were begun."""
    found = Timeline()
    for sequence, entry in entries:
        if entry.event in ANSWERS:
            _answered(found, sequence, entry)
        if "failing" in entry.notices and entry.phase == "compensating":
            for attempt in found.attempts:
                if attempt.verb == "do":
                    _give_up(attempt, entry.at_seconds)
        for asked in entry.sent:
            verb, _, step = asked.partition(" ")
            _asked(found, step, verb, entry.at_seconds)
    return found


def _answered(found: Timeline, sequence: int, entry: Entry) -> None:
    """End what was answered. An answer to an earlier attempt is one to the command: nobody waits any more."""
    of_command = [a for a in found.attempts if (a.step, a.verb, a.round) == (entry.step, entry.verb, entry.round)]
    for attempt in of_command:
        if attempt.attempt == entry.attempt:
            found.took[sequence] = entry.at_seconds - attempt.began_at
    for attempt in found.attempts:
        # The answer to an action settles a pivot whose undo was asked for: nobody waits for that then.
        if attempt.step == entry.step and attempt.verb != entry.verb:
            _give_up(attempt, entry.at_seconds)
    if of_command and (entry.event not in MISSED or not of_command[-1].outcome):
        of_command[-1].ended_at, of_command[-1].outcome = entry.at_seconds, entry.event


def _asked(found: Timeline, step: str, verb: str, at: float) -> None:
    before = [a for a in found.attempts if a.step == step and a.verb == verb]
    if before and not before[-1].outcome:
        return  # asked for again in the same words, after the saga was held
    for attempt in found.attempts:
        if attempt.step == step:
            _give_up(attempt, at)
    round_, number = 0, 1
    if before:
        last = before[-1]
        round_, number = (last.round + 1, 1) if last.outcome == "refused" else (last.round, last.attempt + 1)
    found.attempts.append(Attempt(step, verb, round_, number, at))


def _give_up(attempt: Attempt, at: float) -> None:
    if not attempt.outcome:
        attempt.ended_at, attempt.outcome = at, GIVEN_UP
