"""What a scenario is: data. A domain, a load, faults and expectations; the same for every way of running it."""

import enum
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from actors.definition import Saga
from actors.handlers import ServiceHandlers
from broker.subjects import check_token
from persistence.transaction import Transaction

COORDINATOR, SERVICES, BROKER = "coordinator", "services", "broker"
NODES = (COORDINATOR, SERVICES, BROKER)
COORDINATOR_NAME = "main"
"""The coordinator's subject token in every scenario."""
PLACE = "place"
"""The step name under which a request stands in the entry service's ledger."""
BOUNDARIES = ("commit.before", "commit.after", "publish.before", "publish.after", "ack.before", "ack.after")


class ScenarioError(ValueError):
    """A scenario cannot be right, or there is none of that name; one clear line."""


def _demand(holds: bool, words: str) -> None:
    if not holds:
        raise ScenarioError(words)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_time(value: object) -> bool:
    """Whether it is a number of seconds: finite, and not negative."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


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
        _demand(is_time(self.slow_seconds), f"slow_seconds must be a time of 0 or more, not {self.slow_seconds!r}")
        _demand(_is_count(self.faulty_attempts, 0), f"faulty_attempts cannot be {self.faulty_attempts!r}")


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
        _demand(
            isinstance(self.sagas, Mapping) and bool(self.sagas), f"{where}: sagas must be a mapping, and not empty"
        )
        for name, saga in self.sagas.items():
            _demand(isinstance(saga, Saga), f"{where}: saga {name!r} is a {type(saga).__name__}, not a Saga")
        for name in ("services", "audit", "status"):
            _demand(callable(getattr(self, name)), f"{where}: {name} must be a function")
        _check_token(f"{where}: entry_service", self.entry_service)
        _check_token(f"{where}: entry_action", self.entry_action)

    @property
    def steps(self) -> frozenset[str]:
        """The names of all steps of its sagas."""
        return frozenset(step.name for saga in self.sagas.values() for step in saga.steps)


def _check_token(what: str, value: object) -> None:
    _demand(isinstance(value, str), f"{what} must be text, not {value!r}")
    try:
        check_token(what, str(value))
    except ValueError as error:
        raise ScenarioError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL a node once, when the first of its conditions holds; start it again after `down_seconds`.

    `at_seconds` counts from the first request, `after_requests` the requests ended by then, `after_transitions` the
    sagas' transitions that this node has committed. Or at a `boundary`, of the `occurrence`-th saga to pass it
    there with a command for `step` (any command if empty). The broker has no boundaries and no transitions.

    A node watches for one kill at a time, in the scenario's order, and each of its lives counts `after_transitions`
    and `occurrence` from 0: of two kills of a node the second counts from where the first has left off.
    """

    node: str
    at_seconds: float | None = None
    after_requests: int | None = None
    after_transitions: int | None = None
    boundary: str | None = None
    step: str = ""
    occurrence: int = 1
    down_seconds: float = 0.3

    def __post_init__(self) -> None:
        self._check_fields()
        if self.node not in NODES:
            raise ScenarioError(f"there is no node {self.node!r} to kill; there are {', '.join(NODES)}")
        if self.boundary is not None and self.boundary not in BOUNDARIES:
            raise ScenarioError(f"there is no boundary {self.boundary!r}; there are {', '.join(BOUNDARIES)}")
        conditions = (self.at_seconds, self.after_requests, self.after_transitions, self.boundary)
        if sum(condition is not None for condition in conditions) != 1:
            raise ScenarioError("a kill needs one of at_seconds, after_requests, after_transitions and boundary")
        if self.node == BROKER and self.is_internal:
            raise ScenarioError("the broker can be killed at_seconds or after_requests, not at a boundary")

    def _check_fields(self) -> None:
        for name in ("at_seconds", "down_seconds"):
            value = getattr(self, name)
            fits = is_time(value) or (value is None and name == "at_seconds")
            _demand(fits, f"a kill's {name} must be a time of 0 or more, not {value!r}")
        for name, least in (("after_requests", 0), ("after_transitions", 0), ("occurrence", 1)):
            value = getattr(self, name)
            fits = _is_count(value, least) or (value is None and name != "occurrence")
            _demand(fits, f"a kill's {name} must be a whole number of {least} or more, not {value!r}")
        _demand(isinstance(self.step, str), f"a kill's step must be text, not {self.step!r}")
        at_boundary = self.boundary is not None
        _demand(
            at_boundary or (self.step, self.occurrence) == ("", 1), "a kill's step and occurrence go with a boundary"
        )

    @property
    def is_internal(self) -> bool:
        """Whether the node itself has to watch for its condition."""
        return self.boundary is not None or self.after_transitions is not None

    def __str__(self) -> str:
        if self.at_seconds is not None:
            return f"kill {self.node} after {self.at_seconds:g} s"
        if self.after_requests is not None:
            return f"kill {self.node} after {self.after_requests} requests"
        if self.after_transitions is not None:
            return f"kill {self.node} after {self.after_transitions} transitions"
        what = f"{self.step} of saga {self.occurrence}" if self.step else f"saga {self.occurrence}"
        return f"kill {self.node} at {self.boundary}, {what}"


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
    faults: tuple[Kill, ...] = ()
    conducts: Mapping[str, Conduct] = field(default_factory=dict)
    duplicates: int = 1
    expectations: tuple[Expectation, ...] = ()
    stall_seconds: float = 60.0  # a run without any progress for so long has failed

    def __post_init__(self) -> None:
        _check_token("a scenario's name", self.name)
        where = f"scenario {self.name!r}"
        _demand(isinstance(self.story, str), f"{where}: story must be text (has the file a docstring?)")
        _demand(isinstance(self.domain, Domain), f"{where}: domain must be a Domain, not {self.domain!r}")
        _demand(callable(self.load), f"{where}: load must be a function, not {self.load!r}")
        for name in ("orders", "concurrency", "duplicates"):
            value = getattr(self, name)
            _demand(_is_count(value, 1), f"{where}: {name} must be a whole number of 1 or more, not {value!r}")
        _demand(
            is_time(self.stall_seconds) and self.stall_seconds > 0,
            f"{where}: stall_seconds must be more than 0, not {self.stall_seconds!r}",
        )
        self._check_parts(where)

    def _check_parts(self, where: str) -> None:
        """The parts that are collections, and the steps that kills name."""
        for name in ("faults", "expectations"):
            parts = getattr(self, name)
            _demand(isinstance(parts, tuple), f"{where}: {name} must be a tuple, not a {type(parts).__name__}")
        for kill in self.faults:
            _demand(isinstance(kill, Kill), f"{where}: faults must be Kills, not {kill!r}")
            known = {"", PLACE, *self.domain.steps}
            _demand(kill.step in known, f"{where}: there is no step {kill.step!r} to kill at")
        for expectation in self.expectations:
            _demand(callable(expectation), f"{where}: expectations must be functions, not {expectation!r}")
        _demand(isinstance(self.conducts, Mapping), f"{where}: conducts must be a mapping from services to Conducts")
        for service, conduct in self.conducts.items():
            _demand(isinstance(conduct, Conduct), f"{where}: the conduct of {service!r} must be a Conduct")

    @property
    def sequential_saga(self) -> str:
        """The name of the saga that takes one step after another. Raises ScenarioError if there is none."""
        name = f"{next(iter(self.domain.sagas))}-sequential"
        _demand(name in self.domain.sagas, f"scenario {self.name!r} has no saga {name!r} for --sequential")
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
