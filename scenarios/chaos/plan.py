"""A plan: the size of a cluster's life, and the faults done to it. Data: printed, stored, shrunk."""

from dataclasses import asdict, dataclass
from typing import Any

from scenarios.chaos.faults import Fault
from scenarios.chaos.kill import Kill
from scenarios.demand import demand, is_count
from scenarios.errors import ScenarioError
from scenarios.recorded import fields_of
from scenarios.scenario import Domain, Scenario

FAULT_SECONDS = 60.0
"""Faults that have no end of their own are in force for so long at most: then it heals, whatever is still to come."""
MAX_RESUMES = 5  # of one parked saga, before it may stay parked


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One life. `split` makes each service a node of its own; `brisk` bounds the attempts of every step: with `drain`
    these are for simulated nodes only.

    `kills` are the scenario's own, scaled to the size of this life's load.
    """

    orders: int
    concurrency: int
    split: bool = False
    drain: bool = False
    sequential: bool = False
    brisk: int = 0  # attempts of a step before it fails or parks; 0 leaves the definition's own
    kills: tuple[Kill, ...] = ()
    faults: tuple[Fault, ...] = ()

    def lines(self, mode: str = "sim") -> list[str]:
        """The plan for people, the size of the life first; and of each fault that `mode` cannot carry out, why."""
        words = [f"{self.orders} orders", f"{self.concurrency} at a time"]
        words.append("a node each service" if self.split else "one node for all services")
        words += [name for name in ("drain", "sequential") if getattr(self, name)]
        words += [f"{self.brisk} attempts a step"] if self.brisk else []
        return [", ".join(words), *self.fault_lines(mode)]

    def fault_lines(self, mode: str) -> list[str]:
        return [*map(str, self.kills), *(_line(fault, mode) for fault in self.faults)]

    def is_drawn(self, scenario: Scenario) -> bool:
        """Whether there are other faults in it than the scenario's own."""
        return self.faults != scenario.others

    @property
    def size(self) -> int:
        """How many things are done to this life."""
        return len(self.kills) + len(self.faults)

    @property
    def patient(self) -> bool:
        """Whether nothing here may turn a good request back or set it aside."""
        return not self.brisk and not any(fault.kind in _TURNS_BACK for fault in self.faults)


def _line(fault: Fault, mode: str) -> str:
    why_not = fault.why_not(mode)
    return f"{fault} [not in mode {mode}: {why_not}]" if why_not else str(fault)


# With these a good request may rightly run out of attempts, or be refused. Delays count: a step's attempts end.
_TURNS_BACK = frozenset(
    {
        "throws",
        "refuses",
        "slow",
        "swallow",
        "disk",
        "pause",
        "zombie",
        "partition",
        "narrow",
        "broker-crash",
        "messages",
        "delay",
        "crash",
    }
)


def plan_to_data(plan: FaultPlan) -> dict[str, Any]:
    """What JSON can hold of a plan: all of it."""
    return asdict(plan)


def plan_from_data(data: object, what: str = "a plan") -> FaultPlan:
    """Raises ScenarioError, which begins with `what`, for what JSON has not kept of `plan_to_data`."""
    held = fields_of(FaultPlan, data, what)
    for name, least in (("orders", 1), ("concurrency", 1), ("brisk", 0)):
        value = held.get(name, least)
        demand(is_count(value, least), f"{what}: {name!r} must be {least} or more, not {value}")
    for name, kind in (("kills", Kill), ("faults", Fault)):
        parts = enumerate(held.get(name, ()), start=1)
        held[name] = tuple(_part(kind, part, f"{what}: {name} {number}") for number, part in parts)
    return FaultPlan(**held)


def _part(kind: type[Kill | Fault], data: object, what: str) -> Kill | Fault:
    found = fields_of(kind, data, what)
    try:
        return kind(**found)
    except ScenarioError as error:
        raise ScenarioError(f"{what}: {error}") from None


def sequential_of(domain: Domain) -> str | None:
    """The saga that takes the steps of the domain's first one by one, if it has one."""
    name = f"{next(iter(domain.sagas))}-sequential"
    return name if name in domain.sagas else None
