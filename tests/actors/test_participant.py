"""What a service owes to a command: every ledger entry against every command, then every short sequence of them."""

from itertools import product

import pytest

from actors.participant import Answer, Entry, Mark, Run, done, owed, refused
from actors.state import Outcome, Verb

DO, UNDO = Verb
DONE = Entry(Mark.DONE, 0, "result")
REFUSED = Entry(Mark.REFUSED, 1, "sold out")
UNDONE = Entry(Mark.UNDONE, 0, "result")
TOMBSTONED = Entry(Mark.TOMBSTONED, 0, None)
UNDO_REFUSED = Entry(Mark.UNDO_REFUSED, 1, "result", "has left the house")

TOO_LATE = Answer(Outcome.REFUSED, "this step was undone already")
NOTHING_TO_UNDO = Answer(Outcome.DONE, None)

# An entry and a command; what is owed to it.
CASES: list[tuple[Entry | None, Verb, int, Answer | Run]] = [
    (None, DO, 0, Run(None)),
    (None, UNDO, 0, Answer(Outcome.DONE, "tombstoned", TOMBSTONED)),
    (DONE, DO, 0, Answer(Outcome.DONE, "result")),
    (DONE, DO, 1, Answer(Outcome.DONE, "result")),
    (DONE, UNDO, 0, Run(DONE)),
    (REFUSED, DO, 0, Answer(Outcome.REFUSED, "sold out")),
    (REFUSED, DO, 1, Answer(Outcome.REFUSED, "sold out")),
    (REFUSED, DO, 2, Run(REFUSED)),
    (REFUSED, UNDO, 0, Answer(Outcome.DONE, "tombstoned", Entry(Mark.TOMBSTONED, 0, "sold out"))),
    (UNDONE, DO, 0, TOO_LATE),
    (UNDONE, DO, 1, TOO_LATE),
    (UNDONE, UNDO, 0, NOTHING_TO_UNDO),
    (TOMBSTONED, DO, 0, TOO_LATE),
    (TOMBSTONED, DO, 1, TOO_LATE),
    (TOMBSTONED, UNDO, 0, NOTHING_TO_UNDO),
    (UNDO_REFUSED, DO, 0, Answer(Outcome.DONE, "result")),
    (UNDO_REFUSED, UNDO, 0, Answer(Outcome.REFUSED, "has left the house")),
    (UNDO_REFUSED, UNDO, 1, Answer(Outcome.REFUSED, "has left the house")),
    (UNDO_REFUSED, UNDO, 2, Run(UNDO_REFUSED)),
]


@pytest.mark.parametrize(("entry", "verb", "round_", "due"), CASES)
def test_what_is_owed(entry: Entry | None, verb: Verb, round_: int, due: Answer | Run) -> None:
    """An answered command is answered again in the same words; only a refused one is tried again, in a new round."""
    assert owed(entry, verb, round_, settles=False) == due


@pytest.mark.parametrize(("entry", "verb", "round_", "due"), CASES)
def test_what_is_owed_to_settle_a_pivot(entry: Entry | None, verb: Verb, round_: int, due: Answer | Run) -> None:
    """Settling differs in one thing: a pivot that was done is kept, with its result, and no handler runs."""
    if (entry, verb) == (DONE, UNDO):
        due = Answer(Outcome.KEPT, "result")
    assert owed(entry, verb, round_, settles=True) == due


def test_no_mark_is_missing() -> None:
    """The cases above speak of every mark, and of none, with both verbs."""
    marks = {(entry.mark if entry else None, verb) for entry, verb, _, _ in CASES}
    assert marks == set(product([None, *Mark], Verb))


def test_what_a_handler_leaves() -> None:
    """A result is kept for the compensation and after it; a refusal keeps its round and reason."""
    assert done(DO, None, "result") == DONE
    assert done(DO, REFUSED, "result") == DONE
    assert done(UNDO, DONE, "ignored") == UNDONE
    assert refused(DO, 1, None, "sold out") == REFUSED
    assert refused(UNDO, 1, DONE, "has left the house") == UNDO_REFUSED
    assert refused(UNDO, 2, UNDO_REFUSED, "still") == Entry(Mark.UNDO_REFUSED, 2, "result", "still")


def test_no_sequence_of_commands_has_an_effect_twice() -> None:
    """Whatever comes, in any order and number, and however handlers answer: done once, undone once, never again."""
    commands = list(product(Verb, (0, 1), (False, True)))  # verb, round, whether its handler refuses if it runs
    for length in range(1, 6):
        for sequence in product(commands, repeat=length):
            entry: Entry | None = None
            effects: list[Verb] = []
            for verb, round_, refuses in sequence:
                due = owed(entry, verb, round_, settles=False)
                if isinstance(due, Answer):
                    entry = due.entry or entry
                elif refuses:
                    entry = refused(verb, round_, due.entry, "no")
                else:
                    effects.append(verb)
                    entry = done(verb, due.entry, "result")
            assert effects in ([], [DO], [DO, UNDO]), sequence


def test_a_command_that_was_answered_is_answered_alike() -> None:
    """To repeat a command right away changes nothing: the same outcome and value, and the same entry."""
    for entry, verb, round_, due in CASES:
        if isinstance(due, Answer):
            after, outcome = due.entry or entry, due.outcome
        else:
            after, outcome = done(verb, due.entry, "result"), Outcome.DONE
        again = owed(after, verb, round_, settles=False)
        assert isinstance(again, Answer)
        assert (again.outcome, again.entry) == (outcome, None)


def test_a_tombstone_is_for_ever() -> None:
    """Once a step is tombstoned or undone, no command in any round has an effect or changes the entry."""
    for entry, verb, round_ in product((TOMBSTONED, UNDONE), Verb, range(3)):
        due = owed(entry, verb, round_, settles=False)
        assert isinstance(due, Answer)
        assert due.entry is None
