"""The vocabulary of faults, one for simulated and for real clusters. Data: printed, stored, drawn, shrunk."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scenarios.demand import demand, is_count, is_number, is_time
from scenarios.places import BOUNDARIES, BROKER, COORDINATOR, SERVICES

REAL, SIM = "real", "sim"
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
REPEATED = ("duplicate", "forget_id")
"""The accidents that a client which listens in can cause: it publishes again what it has heard."""

_NODE, _SERVICE, _STEP = "node", "service", "step"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a kind of fault strikes, which details it has, and whether its value is a probability."""

    target: str = ""
    details: tuple[str, ...] = ("",)
    is_chance: bool = False
    least_count: int = 1


KINDS: Mapping[str, Kind] = {
    "messages": Kind(details=ACCIDENTS, is_chance=True),
    "delay": Kind(),
    "broker-crash": Kind(details=("keep", "tail", "wipe")),
    "partition": Kind(_NODE, ("both", "out", "in", "cut", "reset")),
    "narrow": Kind(_NODE),
    "crash": Kind(_NODE),
    "boundary": Kind(_NODE, BOUNDARIES),
    "pause": Kind(_NODE),
    "zombie": Kind(_NODE),
    "disk": Kind(_NODE, ("fail", "slow"), is_chance=True),
    "throws": Kind(_SERVICE, is_chance=True),
    "refuses": Kind(_SERVICE, is_chance=True),
    "slow": Kind(_SERVICE),
    "cancel": Kind(least_count=0),
    "swallow": Kind(_STEP, ("do", "reply"), is_chance=True),
    "starts": Kind(details=("same", "conflicting"), is_chance=True),
    "garbage": Kind(),
    "clock": Kind(_NODE),
}

STANDING = ("cancel", "swallow", "starts")
"""Kinds that are in force from the first request to the healing, and have no moment at which they come."""

_OF_BROKER = ("messages", "delay", "broker-crash", "partition", "narrow", "starts", "garbage")

_NO_SINGLE_MESSAGE = "a real broker loses and delays no single message on demand"
_CANNOT: Mapping[str, Mapping[tuple[str, str], str]] = {
    REAL: {
        **{("messages", accident): _NO_SINGLE_MESSAGE for accident in ACCIDENTS if accident not in REPEATED},
        **{("swallow", what): _NO_SINGLE_MESSAGE for what in ("do", "reply")},
        ("broker-crash", "tail"): "what a killed broker had written, the system still has",
        ("disk", "slow"): "a real disk is as slow as it is",
        ("clock", ""): "its processes share the machine's clock",
    },
    SIM: {("narrow", ""): "a simulated message has no weight"},
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. What `target`, `detail`, `value` and `count` say depends on `kind`; the times are in seconds.

    | kind | target | detail | value | count |
    |---|---|---|---|---|
    | messages | - | which accident | its probability; stray ones by up to 1 s | - |
    | delay | - | - | by how many seconds at most every message is late | - |
    | broker-crash | - | keep, tail or wipe | seconds of tail lost | - |
    | partition | node | both, out, in: swallowed; cut: closed and refused; reset: closed once | - | - |
    | narrow | node | - | bytes a second that its line carries | - |
    | crash | node | - | - | crashes in a row, each early in the life before |
    | boundary | node | boundary | - | at which passage |
    | pause | node; in real mode the broker too | - | - | - |
    | zombie | node | - | seconds until a successor starts | - |
    | disk | node | fail or slow | probability; a real disk that fails does so always | - |
    | throws, refuses, slow | service | - | probability; seconds for slow | - |
    | cancel | - | - | seconds after its begin | order's number |
    | swallow | step | do or reply | probability that its action's command or reply is lost | - |
    | starts | - | same or conflicting | probability | - |
    | garbage | - | - | messages a second that nobody can read | - |
    | clock | node | - | seconds it jumps | - |

    It begins at `at_seconds` and lasts `seconds`, or the node is down for so long. Raises ScenarioError for what
    cannot be.
    """

    kind: str
    target: str = ""
    at_seconds: float = 0.0
    seconds: float = 0.0
    detail: str = ""
    value: float = 0.0
    count: int = 1

    def __post_init__(self) -> None:
        demand(self.kind in KINDS, f"there is no fault {self.kind!r}; there are {', '.join(KINDS)}")
        kind, what = KINDS[self.kind], f"a fault {self.kind!r}"
        demand(isinstance(self.target, str), f"{what}: its target must be text, not {self.target!r}")
        wanted = f"names a {kind.target}" if kind.target else "names no target"
        demand(bool(self.target) == bool(kind.target), f"{what} {wanted}, not {self.target!r}")
        details = ", ".join(kind.details) if any(kind.details) else "none"
        demand(self.detail in kind.details, f"{what} has no detail {self.detail!r}; there are: {details}")
        for name in ("at_seconds", "seconds"):
            value = getattr(self, name)
            demand(is_time(value), f"{what}: {name} must be a time of 0 or more, not {value!r}")
        self._check_value(what, kind)

    def _check_value(self, what: str, kind: Kind) -> None:
        value = self.value
        if kind.is_chance:
            demand(is_time(value) and value <= 1, f"{what}: its value is a probability, not {value!r}")
        else:
            fits = is_number(value) if self.kind == "clock" else is_time(value)
            demand(fits, f"{what}: its value must be a number of 0 or more, not {value!r}")
        words = f"a whole number of {kind.least_count} or more"
        demand(is_count(self.count, kind.least_count), f"{what}: its count must be {words}, not {self.count!r}")

    def check_target(self, where: str, steps: Collection[str]) -> None:
        """Whether a scenario of these steps has what it strikes; services are looked up when they are built.

        Raises ScenarioError.
        """
        wanted = KINDS[self.kind].target
        if wanted == _NODE:
            nodes = (COORDINATOR, SERVICES, BROKER) if self.kind == "pause" else (COORDINATOR, SERVICES)
            demand(self.target in nodes, f"{where}: {self.kind} strikes {' or '.join(nodes)}, not {self.target!r}")
        elif wanted == _STEP:
            demand(self.target in steps, f"{where}: there is no step {self.target!r} to {self.kind}")

    @property
    def service(self) -> str:
        """The service that it troubles; "" if it troubles none."""
        return self.target if KINDS[self.kind].target == _SERVICE else ""

    @property
    def is_of_broker(self) -> bool:
        """Whether it strikes the broker, or what goes to it and comes from it."""
        return self.kind in _OF_BROKER or self.target == BROKER

    @property
    def ends_at(self) -> float:
        """When the last of it is over, in seconds; 0 if no clock says when it comes."""
        return 0.0 if self.kind in (*STANDING, "boundary") else self.at_seconds + self.seconds

    def why_not(self, mode: str) -> str:
        """Why a mode, real or sim, cannot carry it out; "" if it can."""
        if mode == SIM and (self.kind, self.target) == ("pause", BROKER):
            return "its broker is no process that could be stopped"
        if mode == REAL and self.kind == "disk" and sys.platform != "linux":
            return "only Linux lets a process be kept from writing by another one"
        return _CANNOT[mode].get((self.kind, self.detail), "")

    def __str__(self) -> str:
        parts = [self.kind, self.target, self.detail]
        if self.kind == "boundary":
            parts.append(f"passage {self.count}, down {self.seconds:.3f} s")
        elif self.kind == "cancel":
            parts.append(f"order {self.count} {self.value:.4f} s after its begin")
        else:
            parts.append(f"at {self.at_seconds:.3f} s")
            parts += [f"for {self.seconds:.3f} s"] if self.seconds else []
            parts += [f"({self.value:g})"] if self.value else []
            parts += [f"{self.count} times"] if self.count > 1 else []
        return " ".join(part for part in parts if part)
