"""A scenario's kill: SIGKILL when a condition holds."""

from dataclasses import dataclass

from scenarios.demand import demand, is_count, is_time
from scenarios.errors import ScenarioError
from scenarios.places import BOUNDARIES, BROKER, NODES


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
            demand(fits, f"a kill's {name} must be a time of 0 or more, not {value!r}")
        for name, least in (("after_requests", 0), ("after_transitions", 0), ("occurrence", 1)):
            value = getattr(self, name)
            fits = is_count(value, least) or (value is None and name != "occurrence")
            demand(fits, f"a kill's {name} must be a whole number of {least} or more, not {value!r}")
        demand(isinstance(self.step, str), f"a kill's step must be text, not {self.step!r}")
        at_boundary = self.boundary is not None
        demand(
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
