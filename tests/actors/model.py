"""A model checker for one saga: the real machine and the real ledger rules, joined by a network that may do anything.

A world is the saga's state and, for each step, a cell: what its service's ledger holds, what really happened there,
and the messages about it. A message that was sent stays in the network for ever and may be delivered at any time:
so it comes once, many times, late, out of order or, if nobody chooses to deliver it, never. A service that dies
between its commit and its reply is a reply that nobody delivers. `Bounds` says what else may happen.

The search is breadth first, so the path in a `ViolationError` is a shortest one. What is left out, and why that is
sound: moves that change nothing; unless `faults` is on, the attempt within a message, since attempts share their
command's id (`_decide` checks that the answer to any attempt is worth the same); with `twins`, worlds that differ
only by an exchange of steps of the same kind, needs and dependents (names in a path are then up to exchange).
"""

from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

from actors import machine, participant
from actors.definition import Kind, Saga
from actors.machine import Decision, ImpossibleEventError
from actors.participant import Answer, Entry, Mark, Run
from actors.state import (
    DOING,
    TERMINAL,
    UNDOING,
    Answered,
    Begin,
    Cancel,
    Event,
    Hold,
    Outcome,
    Resume,
    Send,
    State,
    TimedOut,
    Verb,
    initial,
    is_parked,
    waiting_for,
)
from tests.actors.properties import (
    NEVER,
    REVERSED,
    STANDING,
    BrokenError,
    check_effect,
    check_turn,
    check_world,
    hold_true,
    memorable,
)

T = TypeVar("T")
Decide = Callable[[Saga, State, Event], Decision]
Owed = Callable[[Entry | None, Verb, int, bool], Answer | Run]


class Bounds(NamedTuple):
    """What may happen besides deliveries, timeouts, refusals by steps up to the pivot, cancels and restarts."""

    resumes: int = 0  # how often a person resumes a parked saga
    refuse_all: bool = False  # retriable steps and undos may be refused too
    faults: bool = False  # handlers may throw; each attempt is then a message of its own
    gaps: bool = False  # the coordinator may die between its save and its publish
    holds: bool = False  # the supervisor may set the saga aside at any time
    twins: bool = False  # worlds that differ by an exchange of like steps count once


class Report(NamedTuple):
    worlds: int
    seen: frozenset[str]  # the memorable things that happened at least once


class ViolationError(AssertionError):
    """A property does not hold: which one, and the moves that lead there from the start."""

    def __init__(self, saga: Saga, problem: str, path: list[str]) -> None:
        moves = "".join(f"\n  {n:2}. {move}" for n, move in enumerate(path, 1))
        super().__init__(f"saga {saga.name!r} ({saga.siblings.value}): {problem}; it came so:{moves}")
        self.problem, self.path = problem, path


class Message(NamedTuple):
    """A command, or with an outcome the reply to it."""

    verb: Verb
    round: int
    attempt: int
    outcome: Outcome | None


class Cell(NamedTuple):
    """One step at its service and in the network; messages are sets of bits."""

    mark: tuple[Mark, int] | None  # the ledger's entry without its value
    effect: int
    sent: int
    unsent: int  # saved by the coordinator and not yet published


class Move(NamedTuple):
    """What a service or the network does to one cell."""

    label: str
    cell: int
    ran: Verb | None  # the handler that took effect
    healthy: bool  # it brings no new trouble


class Turn(NamedTuple):
    """What an event does to the saga; the state is None if it stays as it is."""

    label: str
    state: int | None
    sends: tuple[tuple[int, int], ...]  # step and bit


class About(NamedTuple):
    """What is worth knowing of a saga's state."""

    state: State
    waits: tuple[tuple[int, int], ...]  # step and bit of the commands it waits for
    clocks: tuple[int, ...]  # the timeouts that may come
    at_rest: bool  # terminal, or parked for a person


World = tuple[int, ...]  # the number of the saga's state, the resumes left, and the number of each step's cell


class Numbered(Generic[T]):
    """Values by number and numbers by value."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        number = self.numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class Checker:
    """Explores all worlds of one saga. `decide` and `owed` are the real ones unless a test wants to see it fail."""

    def __init__(
        self, saga: Saga, bounds: Bounds, decide: Decide = machine.decide, owed: Owed = participant.owed
    ) -> None:
        self.saga, self.bounds, self.decide, self.owed = saga, bounds, decide, owed
        self.seen: set[str] = set()
        self.trying = ""  # the move being made, for the path of a violation
        # A world is a few small integers: the values that they number, and what has been worked out about them.
        self.messages = Numbered[Message]()
        self.cells = Numbered[Cell]()
        self.states = Numbered[State]()
        self.events = Numbered[tuple[str, Event]]()
        self.about: list[About] = []
        self.turns: dict[tuple[int, int], Turn] = {}
        self.moves: dict[tuple[int, int], tuple[Move, ...]] = {}
        self.hearings: dict[tuple[int, int], tuple[tuple[int, bool], ...]] = {}
        self.twins = _twins(saga) if bounds.twins else []
        self.begin, self.cancel = self._event(Begin()), self._event(Cancel())
        self.hold, self.resume = self._event(Hold()), self._event(Resume())

    # --- the search --------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Visit every world. Raises ViolationError at the first property that does not hold."""
        nothing = self._cell(Cell(None, NEVER, 0, 0))
        start: World = (self._state(initial(self.saga)), self.bounds.resumes, *[nothing] * len(self.saga.steps))
        number: dict[World, int] = {start: 0}
        worlds = [start]
        came_from: list[tuple[int, str]] = [(0, "")]
        healthy: list[list[int]] = [[]]  # the worlds from which a move without new trouble leads to this one
        here = 0
        while here < len(worlds):
            try:
                for is_healthy, world in self._next(worlds[here]):
                    there = number.get(world)
                    if there is None:
                        self._check_world(world)
                        there = number[world] = len(worlds)
                        worlds.append(world)
                        came_from.append((here, self.trying))
                        healthy.append([])
                    if is_healthy:
                        healthy[there].append(here)
            except BrokenError as broken:
                raise ViolationError(self.saga, str(broken), [*_path(came_from, here), self.trying]) from None
            here += 1
        resting = [n for n, world in enumerate(worlds) if self.about[world[0]].at_rest]
        stranded = _first_unreached(resting, healthy)
        if stranded is not None:
            problem = "even if all goes well from here, the saga can neither end nor park"
            raise ViolationError(self.saga, problem, _path(came_from, stranded))
        return Report(len(worlds), frozenset(self.seen))

    def _next(self, world: World) -> Iterator[tuple[bool, World]]:
        """Every move that changes the world, and whether it is healthy: brings no new trouble."""
        about = self.about[world[0]]
        for i, cell in enumerate(world[2:]):
            for move in self._moves_of(i, cell):
                self.trying = move.label
                if move.ran is not None:
                    effects = [self.cells.values[n].effect for n in world[2:]]
                    check_effect(self.saga, about.state, effects, i, move.ran)
                yield move.healthy, self._sorted((*world[: i + 2], move.cell, *world[i + 3 :]))
            for event, healthy in self._hearings_of(i, cell):
                yield from self._tell(world, event, healthy=healthy)
        for event in about.clocks:
            yield from self._tell(world, event, healthy=False)
        yield from self._tell(world, self.begin, healthy=True)
        yield from self._tell(world, self.cancel, healthy=False)
        if self.bounds.holds:
            yield from self._tell(world, self.hold, healthy=False)
        if world[1]:
            for healthy, after in self._tell(world, self.resume, healthy=True):
                yield healthy, (after[0], after[1] - 1, *after[2:])
        yield from self._restart(world, about)

    def _tell(self, world: World, event: int, *, healthy: bool) -> Iterator[tuple[bool, World]]:
        turn = self.turns.get((world[0], event)) or self._turn(world[0], event)
        self.trying = turn.label
        if turn.state is None:
            return
        cells = list(world[2:])
        for i, bit in turn.sends:
            mark, effect, sent, unsent = self.cells.values[cells[i]]
            if self.bounds.gaps:
                unsent |= bit & ~sent
            else:
                sent |= bit
            cells[i] = self._cell(Cell(mark, effect, sent, unsent))
        yield healthy, self._sorted((turn.state, world[1], *cells))

    def _restart(self, world: World, about: About) -> Iterator[tuple[bool, World]]:
        """The coordinator dies: what it had not published is lost, and what it waits for is emitted again."""
        if not self.bounds.gaps:
            return  # all that it would emit is in the network already: `_check_world` holds that
        self.trying = "the coordinator dies, and rehydrates the saga"
        emitted = dict(about.waits)
        cells = [
            self._cell(cell._replace(unsent=emitted.get(i, 0) & ~cell.sent))
            for i, cell in enumerate(self.cells.values[n] for n in world[2:])
        ]
        if cells != list(world[2:]):
            yield False, self._sorted((world[0], world[1], *cells))

    def _check_world(self, world: World) -> None:
        about = self.about[world[0]]
        cells = [self.cells.values[n] for n in world[2:]]
        check_world(about.state, [cell.effect for cell in cells])
        for i, bit in about.waits:
            hold_true(bool((cells[i].sent | cells[i].unsent) & bit), "it waits for a command that nobody sends")

    # --- what a service and the network do to one step ---------------------------------------------------------

    def _moves_of(self, i: int, number: int) -> tuple[Move, ...]:
        found = self.moves.get((i, number))
        if found is None:
            found = self.moves[i, number] = tuple(self._work_out_moves(i, self.cells.values[number]))
        return found

    def _work_out_moves(self, i: int, cell: Cell) -> Iterator[Move]:
        for message in self._in(cell.unsent):
            bit = self._bit(message)
            published = cell._replace(unsent=cell.unsent & ~bit, sent=cell.sent | bit)
            yield Move(f"{self._words(i, message)} is published", self._cell(published), None, True)
        for message in self._in(cell.sent):
            if message.outcome is None:
                yield from (
                    m
                    for m in self._deliver(i, cell, message)
                    if m.ran is not None or self.cells.values[m.cell] != cell
                )

    def _deliver(self, i: int, cell: Cell, message: Message) -> Iterator[Move]:
        """A command reaches its service."""
        step, verb = self.saga.steps[i], message.verb
        entry = None if cell.mark is None else Entry(*cell.mark, None)
        owed = self.owed(entry, verb, message.round, step.compensation is None)

        def answer(
            words: str, outcome: Outcome, after: Entry | None, *, ran: Verb | None = None, healthy: bool = True
        ) -> Move:
            mark = None if after is None else (after.mark, after.round)
            effect = cell.effect if ran is None else (STANDING, REVERSED)[ran]
            sent = cell.sent | self._bit(message._replace(outcome=outcome))
            label = f"{self._words(i, message)} arrives, and {words}"
            return Move(label, self._cell(Cell(mark, effect, sent, cell.unsent)), ran, healthy)

        if isinstance(owed, Answer):
            if verb is Verb.DO and cell.mark is not None and cell.mark[0] is Mark.TOMBSTONED:
                self.seen.add("a do met a tombstone")
            yield answer(f"the ledger answers {owed.outcome.name}", owed.outcome, owed.entry or entry)
            return
        yield answer("is done", Outcome.DONE, participant.done(verb, owed.entry, None), ran=verb)
        if self.bounds.refuse_all or (verb is Verb.DO and step.kind is not Kind.RETRIABLE):
            refusal = participant.refused(verb, message.round, owed.entry, "")
            yield answer("is refused", Outcome.REFUSED, refusal, healthy=False)
        if self.bounds.faults:
            yield answer("throws", Outcome.FAULTED, entry, healthy=False)

    def _hearings_of(self, i: int, number: int) -> tuple[tuple[int, bool], ...]:
        """What the saga may hear about a step: replies and, with `faults`, clocks that went off late."""
        found = self.hearings.get((i, number))
        if found is None:
            found = self.hearings[i, number] = tuple(
                (self._event(Answered(i, m.verb, m.round, m.attempt, m.outcome)), m.outcome is not Outcome.FAULTED)
                if m.outcome is not None
                else (self._event(TimedOut(i, m.verb, m.round, m.attempt)), False)
                for m in self._in(self.cells.values[number].sent)
                if m.outcome is not None or self.bounds.faults
            )
        return found

    # --- what an event does to the saga ------------------------------------------------------------------------

    def _turn(self, number: int, event_number: int) -> Turn:
        before, (_, event) = self.states.values[number], self.events.values[event_number]
        self.trying = self._label(event)
        after, effects = self._decide(before, event)
        sends = [effect for effect in effects if isinstance(effect, Send)]
        check_turn(self.saga, before, after, sends)
        self.seen |= memorable(self.saga, before, after, event, effects)
        changed = None if after == before else self._state(after)
        turn = Turn(self.trying, changed, tuple((send.step, self._command(send)) for send in sends))
        self.turns[number, event_number] = turn
        return turn

    def _decide(self, before: State, event: Event) -> Decision:
        try:
            decision = self.decide(self.saga, before, event)
            if isinstance(event, Answered) and not self.bounds.faults:
                # The network holds one reply for all attempts: see that the latest attempt's is worth the same.
                step = before.steps[event.step]
                latest = event._replace(attempt=step.attempt)
                asked = {DOING: Verb.DO, UNDOING: Verb.UNDO}.get(step.status)
                if (asked, step.round) == (event.verb, event.round):
                    hold_true(self.decide(self.saga, before, latest) == decision, "attempts' answers differ")
        except ImpossibleEventError as error:
            raise BrokenError(f"possible after all: {error}") from None
        return decision

    # --- numbers for values, and words for people --------------------------------------------------------------

    def _cell(self, cell: Cell) -> int:
        return self.cells.number(cell)

    def _event(self, event: Event) -> int:
        return self.events.number((type(event).__name__, event))  # Begin, Cancel, ... are equal as tuples

    def _state(self, state: State) -> int:
        number = self.states.number(state)
        if number == len(self.about):
            self.about.append(self._look_at(state))
        return number

    def _look_at(self, state: State) -> About:
        waits = waiting_for(state)
        clocks = tuple(self._event(TimedOut(send.step, send.verb, send.round, send.attempt)) for send in waits)
        at_rest = state.phase in TERMINAL or is_parked(state)
        return About(state, tuple((send.step, self._command(send)) for send in waits), clocks, at_rest)

    def _command(self, send: Send) -> int:
        return self._bit(Message(send.verb, send.round, send.attempt if self.bounds.faults else 1, None))

    def _bit(self, message: Message) -> int:
        return 1 << self.messages.number(message)

    def _in(self, bits: int) -> list[Message]:
        return [message for n, message in enumerate(self.messages.values) if bits >> n & 1]

    def _words(self, i: int, message: Message) -> str:
        attempt = f", attempt {message.attempt}" if self.bounds.faults else ""
        return f"{message.verb.name.lower()} {self.saga.steps[i].name} (round {message.round}{attempt})"

    def _label(self, event: Event) -> str:
        if isinstance(event, Answered):
            words = self._words(event.step, Message(event.verb, event.round, event.attempt, event.outcome))
            return f"the saga hears that {words} is {event.outcome.name}"
        if isinstance(event, TimedOut):
            verb, name = event.verb.name.lower(), self.saga.steps[event.step].name
            return f"{verb} {name} (round {event.round}, attempt {event.attempt}) times out"
        return f"the saga is told to {type(event).__name__.lower()}"

    def _sorted(self, world: World) -> World:
        """The one of the worlds that differ only by an exchange of twins that stands for them all."""
        for twins in self.twins:
            state = self.about[world[0]].state
            failed = None if state.failure is None else state.failure.step
            order = sorted(twins, key=lambda i: (state.steps[i], i == failed, world[2 + i]))
            if order == twins:
                continue
            steps, cells = list(state.steps), list(world[2:])
            for to, i in zip(twins, order, strict=True):
                steps[to], cells[to] = state.steps[i], world[2 + i]
            failure = state.failure
            if failure is not None and failed in twins:
                failure = failure._replace(step=twins[order.index(failed)])
            number = self._state(state._replace(steps=tuple(steps), failure=failure))
            world = (number, world[1], *cells)
        return world


# --- graphs --------------------------------------------------------------------------------------------------------


def _path(came_from: list[tuple[int, str]], world: int) -> list[str]:
    path: list[str] = []
    while world:
        world, label = came_from[world]
        path.append(label)
    return path[::-1]


def _first_unreached(goals: list[int], before: list[list[int]]) -> int | None:
    """The first world from which no goal can be reached, walking back from the goals."""
    reached = bytearray(len(before))
    todo = list(goals)
    for n in goals:
        reached[n] = 1
    while todo:
        for n in before[todo.pop()]:
            if not reached[n]:
                reached[n] = 1
                todo.append(n)
    found = reached.find(0)
    return None if found < 0 else found


def _twins(saga: Saga) -> list[list[int]]:
    """The steps that can be exchanged without changing the graph, group by group."""
    groups: dict[object, list[int]] = {}
    for i, step in enumerate(saga.steps):
        key = (step.kind, saga.needs[i], saga.dependents[i], step.do_retry, step.undo_retry)
        groups.setdefault(key, []).append(i)
    return [group for group in groups.values() if len(group) > 1]
