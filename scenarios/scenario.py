"""What a scenario is: data. A domain, a load, faults and expectations; the same for every way of running it."""

import enum
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from actors.definition import Saga
from actors.handlers import ServiceHandlers
from persistence.transaction import Transaction

COORDINATOR, SERVICES, BROKER = "coordinator", "services", "broker"
NODES = (COORDINATOR, SERVICES, BROKER)
BOUNDARIES = ("commit.before", "commit.after", "publish.before", "publish.after", "ack.before", "ack.after")


class ScenarioError(ValueError):
    """A scenario cannot be right, or there is none of that name; one clear line."""


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


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL a node once, when the first of its conditions holds; start it again after `down_seconds`.

    `at_seconds` counts from the run's begin, `after_requests` the requests ended by then, `after_transitions` the
    sagas' transitions that this node has committed. Or at a `boundary`, of the `occurrence`-th saga to pass it
    there with a command for `step` (any command if empty). The broker has no boundaries and no transitions.
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
        if self.node not in NODES:
            raise ScenarioError(f"there is no node {self.node!r} to kill; there are {', '.join(NODES)}")
        if self.boundary is not None and self.boundary not in BOUNDARIES:
            raise ScenarioError(f"there is no boundary {self.boundary!r}; there are {', '.join(BOUNDARIES)}")
        conditions = (self.at_seconds, self.after_requests, self.after_transitions, self.boundary)
        if sum(condition is not None for condition in conditions) != 1:
            raise ScenarioError("a kill needs one of at_seconds, after_requests, after_transitions and boundary")
        if self.node == BROKER and self.is_internal:
            raise ScenarioError("the broker can be killed at_seconds or after_requests, not at a boundary")

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
    faults_injected: list[str] = field(default_factory=list)
    dead_letters: int = 0
    elapsed_seconds: float = 0.0
    sagas_per_second: float = 0.0
    latency_ms: dict[str, float] = field(default_factory=dict)
    latency_to_pivot_ms: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    verdict: str = "failed"


Expectation = Callable[[Result], str | None]
"""Says in words what does not hold, or None."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story: `load(random, i)` draws the i-th request; `duplicates` is how often each message is published."""

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
        if self.orders < 1 or self.concurrency < 1 or self.duplicates < 1:
            raise ScenarioError(f"scenario {self.name!r}: orders, concurrency and duplicates must be 1 or more")


def at_least(name: str, least: int) -> Expectation:
    """Expect a counter of the result to have reached a number."""

    def expectation(result: Result) -> str | None:
        found = getattr(result, name, None)
        if not isinstance(found, int):
            found = result.counters.get(name, 0)
        return None if found >= least else f"expected at least {least} {name.replace('_', ' ')}, found {found}"

    return expectation


def none_of(name: str) -> Expectation:
    """Expect a number of the result to be zero."""

    def expectation(result: Result) -> str | None:
        found = getattr(result, name)
        return None if found == 0 else f"expected no {name.replace('_', ' ')}, found {found}"

    return expectation


def kills_of(node: str, least: int = 1) -> Expectation:
    """Expect a node to have been killed."""

    def expectation(result: Result) -> str | None:
        found = sum(fault.startswith(f"kill {node}") for fault in result.faults_injected)
        return None if found >= least else f"expected at least {least} kills of {node}, found {found}"

    return expectation
