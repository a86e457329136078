"""A plan: the size of a cluster's life, and the faults done to it. Data: printed, stored, shrunk."""

from dataclasses import asdict, dataclass
from typing import Any

from scenarios.scenario import Domain, Kill

ACCIDENTS = (
    "lose_publish",
    "lose_publish_ack",
    "lose_stored",
    "lose_delivery",
    "lose_ack",
    "duplicate",
    "forget_id",
    "stray",
)
"""What can happen to single messages: the fields of `broker.simulated.Faults`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. What `target`, `detail`, `value` and `count` say depends on `kind`; the times are in seconds.

    | kind | target | detail | value | count |
    |---|---|---|---|---|
    | messages | - | which accident | its probability; stray ones by up to 1 s | - |
    | delay | - | - | by how many seconds at most every message is late | - |
    | broker-crash | - | keep, tail or wipe | seconds of tail lost | - |
    | partition | node | both, out or in | - | - |
    | crash | node | - | - | crashes in a row, each early in the life before |
    | boundary | node | boundary | - | at which passage |
    | pause | node | - | - | - |
    | zombie | node | - | seconds until a successor starts | - |
    | disk | node | fail or slow | probability | - |
    | throws, refuses, slow | service | - | probability; seconds for slow | - |
    | cancel | - | - | seconds after its begin | order's number |
    | swallow | step | do or reply | probability that its action's command or reply is lost | - |
    | starts | - | same or conflicting | probability | - |
    | clock | node | - | seconds it jumps | - |

    It begins at `at_seconds` and lasts `seconds`, or the node is down for so long.
    """

    kind: str
    target: str = ""
    at_seconds: float = 0.0
    seconds: float = 0.0
    detail: str = ""
    value: float = 0.0
    count: int = 1

    def __str__(self) -> str:
        parts = [self.kind, self.target, self.detail]
        if self.kind == "boundary":
            parts.append(f"passage {self.count}, down {self.seconds:.3f} s")
        elif self.kind == "cancel":
            parts.append(f"order {self.count} {self.value:.4f} s after its begin")
        else:
            parts.append(f"at {self.at_seconds:.3f} s")
            parts += [f"for {self.seconds:.3f} s"] if self.seconds else []
            parts += [f"({self.value:.3g})"] if self.value else []
            parts += [f"{self.count} times"] if self.count > 1 else []
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One life. `split` makes each service a node of its own; `brisk` bounds the attempts of every step.

    `kills` are the scenario's own faults, scaled to the size of this life's load.
    """

    orders: int
    concurrency: int
    split: bool = False
    drain: bool = False
    sequential: bool = False
    brisk: int = 0  # attempts of a step before it fails or parks; 0 leaves the definition's own
    kills: tuple[Kill, ...] = ()
    faults: tuple[Fault, ...] = ()

    def lines(self) -> list[str]:
        """The plan for people, the size of the life first."""
        words = [f"{self.orders} orders", f"{self.concurrency} at a time"]
        words.append("a node each service" if self.split else "one node for all services")
        words += [name for name in ("drain", "sequential") if getattr(self, name)]
        words += [f"{self.brisk} attempts a step"] if self.brisk else []
        return [", ".join(words), *map(str, self.kills), *map(str, self.faults)]

    @property
    def patient(self) -> bool:
        """Whether nothing here may turn a good request back or set it aside."""
        return not self.brisk and not any(fault.kind in _TURNS_BACK for fault in self.faults)


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
        "broker-crash",
        "messages",
        "delay",
        "crash",
    }
)


def plan_to_data(plan: FaultPlan) -> dict[str, Any]:
    """What JSON can hold of a plan: all of it."""
    return asdict(plan)


def plan_from_data(data: dict[str, Any]) -> FaultPlan:
    """Raises TypeError, KeyError or ScenarioError for what `plan_to_data` has not made."""
    kills = tuple(Kill(**kill) for kill in data.pop("kills"))
    faults = tuple(Fault(**fault) for fault in data.pop("faults"))
    return FaultPlan(**data, kills=kills, faults=faults)


def sequential_of(domain: Domain) -> str | None:
    """The saga that takes the steps of the domain's first one by one, if it has one."""
    name = f"{next(iter(domain.sagas))}-sequential"
    return name if name in domain.sagas else None
