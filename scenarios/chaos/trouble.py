"""Services in trouble, and a count of their effects kept beside them in the same transaction.

A user's own handlers are wrapped, so any domain can be troubled and counted. The count is an oracle that knows
nothing of a domain: what a handler did and what was counted are committed together, or neither is.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import cast

from actors.handlers import HandlerTable, Refused, ServiceHandlers, ServiceTransaction, handlers_of
from actors.handlers import action as action_mark
from actors.handlers import compensation as compensation_mark
from actors.handlers import unconditional_compensation as unconditional_mark
from actors.messages import Command
from actors.state import Verb
from broker.codec import unpack
from persistence.transaction import Transaction
from scenarios.calling import call
from scenarios.scenario import Conduct, Domain, Scenario

EFFECTS = "counted_effects"
"""A table of each service: "saga/step/do|undo" -> [how often, the number of the first]."""


Spared = frozenset[tuple[str, str]]
"""Services and their actions that must not be made to refuse."""


class TroubleError(RuntimeError):
    """What a service in trouble throws, after it has written."""


@dataclass(slots=True)
class Mood:
    """How one service behaves for now: chances from 0 to 1, and how long it puts every command off."""

    throws: float = 0.0
    refuses: float = 0.0
    slow_seconds: float = 0.0


@dataclass(slots=True)
class Troubles:
    """The moods of all services over all lives of their nodes. `numbers` orders the effects of the whole world.
    `spared` actions are never made to refuse.

    `refresh` is called before each command: moods that come from elsewhere are looked up then.
    """

    random: Random
    spared: Spared
    moods: dict[str, Mood] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    refresh: Callable[["Troubles"], None] | None = None

    def mood(self, service: str) -> Mood:
        return self.moods.setdefault(service, Mood())

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def calm(self) -> None:
        for mood in self.moods.values():
            mood.throws = mood.refuses = mood.slow_seconds = 0.0

    def applied_to(self, domain: Domain) -> Domain:
        """The same domain, with services that can be troubled."""

        def services(conducts: Mapping[str, Conduct]) -> list[ServiceHandlers]:
            return [self.wrap(service) for service in domain.services(conducts)]

        return replace(domain, services=services)

    def wrap(self, handlers: ServiceHandlers) -> ServiceHandlers:
        """The same service, in trouble and counted."""
        table = handlers_of(handlers)
        kind = _class_of(type(handlers).__name__, (*table.actions,), (*table.compensations,), table.unconditional)
        return kind(handlers, table, self)

    def slow_seconds(self, mood: Mood) -> float:
        if self.refresh is not None:
            self.refresh(self)
        return mood.slow_seconds

    def strike(self, mood: Mood, *, refusable: bool) -> None:
        """Raises TroubleError or Refused, if its mood is such."""
        if self.happens(mood.throws):
            raise TroubleError("thrown on purpose")
        if refusable and self.happens(mood.refuses):
            raise Refused("refused on purpose")

    def count(self, transaction: ServiceTransaction, command: Command) -> None:
        """What took effect by this command, within its own transaction."""
        verb = "do" if command.verb is Verb.DO else "undo"
        key = f"{command.saga_id}/{command.step}/{verb}"
        times, first = transaction.get(EFFECTS, key) or (0, next(self.numbers))
        transaction.put(EFFECTS, key, [times + 1, first])


class _Troubled:
    """A service in trouble: each handler of its class does what the service's own does, and then is counted."""

    def __init__(self, handlers: ServiceHandlers, table: HandlerTable, troubles: Troubles) -> None:
        self.name = handlers.name
        self.tables = (*handlers.tables, EFFECTS)
        for name in ("prepare", "start_rejected"):
            if hasattr(handlers, name):
                setattr(self, name, getattr(handlers, name))
        self._delay: Callable[[Command], float] = getattr(handlers, "delay_seconds", lambda _: 0.0)
        self._table = table
        self._troubles = troubles
        self._mood = troubles.mood(handlers.name)

    def delay_seconds(self, command: Command) -> float:
        return self._delay(command) + self._troubles.slow_seconds(self._mood)


@lru_cache(maxsize=256)
def _class_of(
    name: str, actions: tuple[str, ...], compensations: tuple[str, ...], unconditional: frozenset[str]
) -> type[_Troubled]:
    """A class with handlers of these names. A class costs far more than an instance, and worlds have many alike."""
    members: dict[str, Callable[..., object]] = {action: action_mark(_acting(action)) for action in actions}
    for undo in compensations:
        members[undo] = (unconditional_mark if undo in unconditional else compensation_mark)(_undoing(undo))
    return type(name, (_Troubled,), members)


def _acting(name: str) -> Callable[..., object]:
    def run(self: _Troubled, transaction: ServiceTransaction, command: Command) -> object:
        result = self._table.actions[name](transaction, command)
        self._troubles.count(transaction, command)
        self._troubles.strike(self._mood, refusable=(self.name, name) not in self._troubles.spared)
        return result

    return run


def _undoing(name: str) -> Callable[..., object]:
    def run(self: _Troubled, transaction: ServiceTransaction, command: Command, recorded: object) -> None:
        self._table.compensations[name](transaction, command, recorded)
        self._troubles.count(transaction, command)
        self._troubles.strike(self._mood, refusable=True)

    return run


def counted_twice(tx: Transaction, services: Iterable[str]) -> Iterator[str]:
    """The effects that were counted more than once, in words."""
    for service in services:
        for key, stored in tx.scan(f"{service}.{EFFECTS}"):
            times, _ = cast(list[int], unpack(stored))
            if times > 1:
                yield f"{key.decode()} took effect {times} times"


def never_refused(scenario: Scenario) -> Spared:
    """The entry, and actions whose compensation is unconditional: what that releases was taken before, and a refused
    action is not undone; so their author may never refuse them. Raises ScenarioError."""
    domain = scenario.domain
    services = call("the domain's services", domain.services, scenario.conducts)
    unconditional = {(service.name, name) for service in services for name in handlers_of(service).unconditional}
    steps = [step for saga in domain.sagas.values() for step in saga.steps]
    actions = [(step.service, step.action) for step in steps if (step.service, step.compensation) in unconditional]
    return frozenset([(domain.entry_service, domain.entry_action), *actions])
