"""What a scenario is: data. A domain, a load, faults and expectations; the same for every way of running it."""

import enum
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from actors.definition import Saga
from actors.handlers import ServiceHandlers
from broker.subjects import check_token
from persistence.transaction import Transaction
from scenarios.chaos.faults import Fault as Fault
from scenarios.chaos.kill import Kill as Kill
from scenarios.demand import demand, is_count, is_time
from scenarios.errors import ScenarioError as ScenarioError
from scenarios.places import BOUNDARIES as BOUNDARIES
from scenarios.places import BROKER as BROKER
from scenarios.places import COORDINATOR as COORDINATOR
from scenarios.places import NODES as NODES
from scenarios.places import SERVICES as SERVICES

COORDINATOR_NAME = "main"
"""The coordinator's subject token in every scenario."""
PLACE = "place"
"""The step name under which a request stands in the entry service's ledger."""


class Fate(enum.Enum):
    """What must become of a request."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    REJECTED = "rejected"  # refused at the entry: no saga starts
    EITHER = "either"  # completed or compensated, as the race goes


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the load. `cancel_after_seconds` has the client cancel it that long after its saga began."""

    payload: object
    fate: Fate
    cancel_after_seconds: float | None = None


@dataclass(slots=True)
class Findings:
    """What a domain's audit found in the services' data.

    `statuses` counts requests by what became of them; `books` are lines for people, a list a service.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    duplicate_effects: int = 0
    violations: list[str] = field(default_factory=list)
    books: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one service behaves. `slow_seconds` puts every command off; the first `faulty_attempts` attempts of each
    command throw after they have written, so that a rollback has something to roll back."""

    slow_seconds: float = 0.0
    faulty_attempts: int = 0

    def __post_init__(self) -> None:
        demand(is_time(self.slow_seconds), f"slow_seconds must be a time of 0 or more, not {self.slow_seconds!r}")
        demand(is_count(self.faulty_attempts, 0), f"faulty_attempts cannot be {self.faulty_attempts!r}")


@dataclass(frozen=True, slots=True)
class Domain:
    """Sagas and the services that take part in them.

    A request goes to `entry_service` as a command for `entry_action`; that action starts the saga under the
    command's own saga id. `audit(tx, settled)` checks the services' data; `status(tx, saga_id)` tells what became
    of one request: "completed", "compensated", "rejected", or "" while it is on its way.
    """

    name: str
    sagas: Mapping[str, Saga]
    services: Callable[[Mapping[str, Conduct]], Sequence[ServiceHandlers]]
    entry_service: str
    entry_action: str
    audit: Callable[[Transaction, bool], Findings]
    status: Callable[[Transaction, str], str]

    def __post_init__(self) -> None:
        where = f"domain {self.name!r}"
        demand(
            isinstance(self.sagas, Mapping) and bool(self.sagas), f"{where}: sagas must be a mapping, and not empty"
        )
        for name, saga in self.sagas.items():
            demand(isinstance(saga, Saga), f"{where}: saga {name!r} is a {type(saga).__name__}, not a Saga")
            demand(saga.name == name, f"{where}: saga {saga.name!r} stands under the name {name!r}")
        for name in ("services", "audit", "status"):
            demand(callable(getattr(self, name)), f"{where}: {name} must be a function")
        _check_token(f"{where}: entry_service", self.entry_service)
        _check_token(f"{where}: entry_action", self.entry_action)

    @property
    def steps(self) -> frozenset[str]:
        """The names of all steps of its sagas."""
        return frozenset(step.name for saga in self.sagas.values() for step in saga.steps)


def _check_token(what: str, value: object) -> None:
    demand(isinstance(value, str), f"{what} must be text, not {value!r}")
    try:
        check_token(what, str(value))
    except ValueError as error:
        raise ScenarioError(str(error)) from None


@dataclass(slots=True)
class Result:
    """What a run came to: the object that `--json` writes."""

    scenario: str
    seed: int
    mode: str
    orders: int
    completed: int = 0
    compensated: int = 0
    rejected: int = 0
    parked: int = 0
    lost: int = 0
    duplicate_effects: int = 0
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)
    faults_injected: list[str] = field(default_factory=list)
    dead_letters: int = 0
    elapsed_seconds: float = 0.0
    sagas_per_second: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    latency_to_pivot_ms: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    verdict: str = "failed"


Expectation = Callable[[Result], str | None]
"""Says in words what does not hold, or None. The first line of its docstring says what it expects."""


@dataclass(frozen=True, slots=True)
class Sometimes:
    """An expectation of what must have happened at some time. It is held against runs of the scenario's own number of
    requests or more; a smaller one may be too small to see it, and only says so."""

    expectation: Expectation

    def __call__(self, result: Result) -> str | None:
        return self.expectation(result)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story: `load(random, i)` draws the i-th request; `duplicates` is how often each message is published.

    Each of `faults` must have come by the end of a run; one of fewer requests than `orders` only says what has not.
    """

    name: str
    story: str
    domain: Domain
    load: Callable[[Random, int], Request]
    orders: int = 200
    concurrency: int = 50
    faults: tuple[Kill | Fault, ...] = ()
    conducts: Mapping[str, Conduct] = field(default_factory=dict)
    duplicates: int = 1
    expectations: tuple[Expectation, ...] = ()
    stall_seconds: float = 60.0  # a run without any progress for so long has failed

    def __post_init__(self) -> None:
        _check_token("a scenario's name", self.name)
        where = f"scenario {self.name!r}"
        demand(isinstance(self.story, str), f"{where}: story must be text (has the file a docstring?)")
        demand(isinstance(self.domain, Domain), f"{where}: domain must be a Domain, not {self.domain!r}")
        demand(callable(self.load), f"{where}: load must be a function, not {self.load!r}")
        for name in ("orders", "concurrency", "duplicates"):
            value = getattr(self, name)
            demand(is_count(value, 1), f"{where}: {name} must be a whole number of 1 or more, not {value!r}")
        demand(
            is_time(self.stall_seconds) and self.stall_seconds > 0,
            f"{where}: stall_seconds must be more than 0, not {self.stall_seconds!r}",
        )
        self._check_parts(where)

    def _check_parts(self, where: str) -> None:
        """The parts that are collections, and the steps that kills name."""
        for name in ("faults", "expectations"):
            parts = getattr(self, name)
            demand(isinstance(parts, tuple), f"{where}: {name} must be a tuple, not a {type(parts).__name__}")
        for fault in self.faults:
            demand(isinstance(fault, Kill | Fault), f"{where}: faults must be Kills and Faults, not {fault!r}")
            if isinstance(fault, Kill):
                known = {"", PLACE, *self.domain.steps}
                demand(fault.step in known, f"{where}: there is no step {fault.step!r} to kill at")
            else:
                fault.check_target(where, self.domain.steps)
        for expectation in self.expectations:
            demand(callable(expectation), f"{where}: expectations must be functions, not {expectation!r}")
        demand(isinstance(self.conducts, Mapping), f"{where}: conducts must be a mapping from services to Conducts")
        for service, conduct in self.conducts.items():
            demand(isinstance(conduct, Conduct), f"{where}: the conduct of {service!r} must be a Conduct")

    @property
    def kills(self) -> tuple[Kill, ...]:
        return tuple(fault for fault in self.faults if isinstance(fault, Kill))

    @property
    def others(self) -> tuple[Fault, ...]:
        """Its faults that are no kills."""
        return tuple(fault for fault in self.faults if isinstance(fault, Fault))

    @property
    def sequential_saga(self) -> str:
        """The name of the saga that takes one step after another. Raises ScenarioError if there is none."""
        name = f"{next(iter(self.domain.sagas))}-sequential"
        demand(name in self.domain.sagas, f"scenario {self.name!r} has no saga {name!r} for --sequential")
        return name


def at_least(name: str, least: int) -> Expectation:
    """Expect a counter of the result to have reached a number."""

    def expectation(result: Result) -> str | None:
        found = getattr(result, name, None)
        if not isinstance(found, int):
            found = result.counters.get(name, 0)
        return None if found >= least else f"expected at least {least} {name.replace('_', ' ')}, found {found}"

    expectation.__doc__ = f"at least {least} {name.replace('_', ' ')}"
    return Sometimes(expectation)


def none_of(name: str) -> Expectation:
    """Expect a number of the result to be zero."""

    def expectation(result: Result) -> str | None:
        found = getattr(result, name)
        return None if found == 0 else f"expected no {name.replace('_', ' ')}, found {found}"

    expectation.__doc__ = f"no {name.replace('_', ' ')}"
    return expectation


def kills_of(node: str, least: int = 1) -> Expectation:
    """Expect a node to have been killed."""

    def expectation(result: Result) -> str | None:
        found = sum(fault.startswith(f"kill {node}") for fault in result.faults_injected)
        return None if found >= least else f"expected at least {least} kills of {node}, found {found}"

    expectation.__doc__ = f"at least {least} kill{'s' if least > 1 else ''} of {node}"
    return Sometimes(expectation)
