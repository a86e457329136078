"""What a user writes: `Saga`, `Step` and `Retry`, immutable, every mistake found when they are built.

    order = Saga("order", steps=(
        Step("reserve", "inventory", "reserve", compensation="release"),
        Step("charge", "payment", "charge", compensation="refund"),
        Step("confirm", "order", "confirm", kind=Kind.PIVOT, after=("reserve", "charge")),
        Step("ship", "shipping", "dispatch", kind=Kind.RETRIABLE, after=("confirm",)),
    ))

The kinds are those of Chris Richardson (Microservices Patterns, chapter 4): compensatable steps can be undone,
the pivot decides, retriable steps come after it and are repeated until they succeed.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType
from typing import TypeAlias

from broker.subjects import check_token


class DefinitionError(ValueError):
    """A saga definition cannot be right; the message names the saga and the step."""


class Kind(Enum):
    COMPENSATABLE = "compensatable"
    PIVOT = "pivot"
    RETRIABLE = "retriable"


class Siblings(Enum):
    """What becomes of the steps in flight when another step fails. Both are correct."""

    INTERRUPT = "interrupt"  # undo them at once: the quicker way back
    DRAIN = "drain"  # hear them out first: fewer undos of steps that were never done


_Types: TypeAlias = Mapping[str, tuple[tuple[type, ...], str]]
_NUMBER = ((int, float), "a number")
_TEXT = ((str,), "text")
_RETRY_TYPES: _Types = {
    "attempts": ((int,), "a whole number"),
    "first_delay_seconds": _NUMBER,
    "factor": _NUMBER,
    "max_delay_seconds": _NUMBER,
    "jitter": _NUMBER,
}


def _check_types(types: _Types, whole: object, where: str) -> None:
    for name, (kinds, words) in types.items():
        value = getattr(whole, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise DefinitionError(f"{where}: {name!r} is {words}, not {_type_of(value)}")


def _type_of(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # of a whole number that no float can hold
        return False


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon an unanswered or faulted attempt is made again.

    The n-th retry waits `first_delay_seconds * factor ** (n - 1)`, at most `max_delay_seconds`, less a random
    share of up to `jitter` (0 to 1), so that retries of many sagas do not come in step.
    """

    attempts: int = 5
    first_delay_seconds: float = 0.1
    factor: float = 2.0
    max_delay_seconds: float = 10.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _check_types(_RETRY_TYPES, self, "a retry")
        if not all(map(_is_finite, (self.first_delay_seconds, self.factor, self.max_delay_seconds, self.jitter))):
            raise DefinitionError("the delays, the factor and the jitter of a retry must be finite numbers")
        if self.attempts < 1:
            raise DefinitionError(f"a retry needs at least one attempt, not {self.attempts}")
        if self.first_delay_seconds < 0 or self.max_delay_seconds < 0:
            raise DefinitionError("the delays of a retry cannot be negative")
        if self.factor < 1:
            raise DefinitionError(f"the factor of a retry must be at least 1, not {self.factor}")
        if not 0 <= self.jitter <= 1:
            raise DefinitionError(f"the jitter of a retry lies between 0 and 1, not at {self.jitter}")

    def delay_seconds(self, retry: int, chance: float) -> float:
        """The wait before the `retry`-th retry (1 is the first); `chance` in [0, 1) sets the jitter."""
        try:
            delay = min(self.max_delay_seconds, self.first_delay_seconds * self.factor ** (retry - 1))
        except OverflowError:
            delay = self.max_delay_seconds
        return delay * (1 - self.jitter * chance)


PERSISTENT = Retry(attempts=100)
"""For what must succeed in the end: undos and retriable steps. About a quarter of an hour of tries, then park."""


@dataclass(frozen=True, slots=True)
class View:
    """What a step's payload is made from: the saga's id and input, and the results of the steps done so far."""

    saga_id: str
    input: object
    results: Mapping[str, object]


def whole_input(view: View) -> object:
    """The default payload: the saga's input as it is."""
    return view.input


@dataclass(frozen=True, slots=True)
class Step:
    """One local transaction at one service: an action and, if compensatable, its compensation.

    `after` names the steps that must be done before. `payload` makes the action's payload (any value that
    msgpack can hold); an undo carries the reason for it, and its service knows what the action recorded.
    `timeout_seconds` is how long one attempt waits for its reply.
    """

    name: str
    service: str
    action: str
    compensation: str | None = None
    after: tuple[str, ...] = ()
    kind: Kind = Kind.COMPENSATABLE
    timeout_seconds: float = 5.0
    retry: Retry | None = None
    undo_retry: Retry = PERSISTENT
    payload: Callable[[View], object] = whole_input

    @property
    def do_retry(self) -> Retry:
        """The retry of the action: as given, else patient for retriable steps and brief for the others."""
        if self.retry is not None:
            return self.retry
        return PERSISTENT if self.kind is Kind.RETRIABLE else Retry()


@dataclass(frozen=True, slots=True)
class Saga:
    """An immutable graph of steps, validated when it is built.

    `needs[i]` and `dependents[i]` are the indexes of the steps right before and right after step `i`; `pivot` is
    the pivot's index or None; `fingerprint` names the graph as far as running sagas depend on it.
    """

    name: str
    steps: tuple[Step, ...]
    version: int = 1
    siblings: Siblings = Siblings.INTERRUPT
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)
    needs: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    dependents: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    pivot: int | None = field(init=False, repr=False, compare=False)
    fingerprint: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_names(self)
        index = {step.name: i for i, step in enumerate(self.steps)}
        needs = tuple(tuple(sorted({index[name] for name in step.after})) for step in self.steps)
        dependents = tuple(tuple(i for i, needed in enumerate(needs) if j in needed) for j in range(len(self.steps)))
        ancestors = _ancestors(self, needs)
        _check_kinds(self, ancestors)
        pivots = [i for i, step in enumerate(self.steps) if step.kind is Kind.PIVOT]
        derived = {
            "index": index,
            "needs": needs,
            "dependents": dependents,
            "pivot": pivots[0] if pivots else None,
            "fingerprint": _fingerprint(self),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def __hash__(self) -> int:
        return hash((self.name, self.version, self.fingerprint))


_STEP_TYPES: _Types = {
    "name": _TEXT,
    "service": _TEXT,
    "action": _TEXT,
    "compensation": ((str, NoneType), "text or None"),
    "after": ((tuple,), "a tuple of step names"),
    "kind": ((Kind,), "a Kind"),
    "timeout_seconds": _NUMBER,
    "retry": ((Retry, NoneType), "a Retry or None"),
    "undo_retry": ((Retry,), "a Retry"),
    "payload": ((Callable,), "a function of a View"),  # type: ignore[dict-item]  # mypy takes it for no class
}
_SAGA_TYPES: _Types = {
    "name": _TEXT,
    "steps": ((tuple,), "a tuple of steps"),
    "version": ((int,), "a whole number"),
    "siblings": ((Siblings,), "a Siblings"),
}


def _check_names(saga: Saga) -> None:
    """Each name is a token, each step's name is its own, and each dependency names another step."""
    _check_types(_SAGA_TYPES, saga, f"saga {saga.name!r}")
    for number, step in enumerate(saga.steps, start=1):
        if not isinstance(step, Step):
            raise DefinitionError(f"saga {saga.name!r}: step {number} is a Step, not {_type_of(step)}")
        _check_types(_STEP_TYPES, step, f"saga {saga.name!r}, step {step.name!r}")
    try:
        check_token("saga", saga.name)
        for step in saga.steps:
            check_token("step", step.name)
            check_token("service", step.service)
            check_token("action", step.action)
            if step.compensation is not None:
                check_token("compensation", step.compensation)
    except ValueError as error:
        raise DefinitionError(f"saga {saga.name!r}: {error}") from None
    if not saga.steps:
        raise DefinitionError(f"saga {saga.name!r} has no steps")
    if saga.version < 1:
        raise DefinitionError(f"saga {saga.name!r}: the version must be 1 or more, not {saga.version}")
    names: set[str] = set()
    for step in saga.steps:
        if step.name in names:
            raise DefinitionError(f"saga {saga.name!r}: two steps are named {step.name!r}")
        names.add(step.name)
    for step in saga.steps:
        if not (step.timeout_seconds > 0 and _is_finite(step.timeout_seconds)):
            raise DefinitionError(
                f"saga {saga.name!r}, step {step.name!r}: the timeout must be positive, not {step.timeout_seconds}"
            )
        for needed in step.after:
            if not isinstance(needed, str) or needed not in names:
                raise DefinitionError(
                    f"saga {saga.name!r}, step {step.name!r} comes after {needed!r}, and there is no such step"
                )


def _ancestors(saga: Saga, needs: tuple[tuple[int, ...], ...]) -> tuple[frozenset[int], ...]:
    """For each step all steps before it, near and far. A cycle is an error that names its steps."""
    known: dict[int, frozenset[int]] = {}
    while len(known) < len(needs):
        ready = [i for i in range(len(needs)) if i not in known and all(j in known for j in needs[i])]
        if not ready:
            names = ", ".join(repr(saga.steps[i].name) for i in range(len(needs)) if i not in known)
            raise DefinitionError(f"saga {saga.name!r}: a cycle runs through or before the steps {names}")
        for i in ready:
            known[i] = frozenset(needs[i]).union(*(known[j] for j in needs[i]))
    return tuple(known[i] for i in range(len(needs)))


def _check_kinds(saga: Saga, ancestors: tuple[frozenset[int], ...]) -> None:
    """Compensatable steps, then at most one pivot, then retriable steps: so that there is always a way out."""
    pivots = [i for i, step in enumerate(saga.steps) if step.kind is Kind.PIVOT]
    if len(pivots) > 1:
        names = " and ".join(repr(saga.steps[i].name) for i in pivots)
        raise DefinitionError(f"saga {saga.name!r} has two pivots, {names}: at most one step decides")
    pivot = pivots[0] if pivots else None
    for i, step in enumerate(saga.steps):
        where = f"saga {saga.name!r}, step {step.name!r}"
        if step.kind is Kind.COMPENSATABLE:
            if step.compensation is None:
                raise DefinitionError(
                    f"{where} neither has a compensation nor is it the pivot or a retriable step after one"
                )
            if pivot is not None and i not in ancestors[pivot]:
                raise DefinitionError(
                    f"{where} is compensatable and must come before the pivot {saga.steps[pivot].name!r}"
                )
            continue
        if step.compensation is not None:
            raise DefinitionError(f"{where} is {step.kind.value}: it is never undone and can have no compensation")
        if step.kind is Kind.RETRIABLE:
            if pivot is None:
                raise DefinitionError(f"{where} is retriable, and the saga has no pivot for it to come after")
            if pivot not in ancestors[i]:
                raise DefinitionError(
                    f"{where} is retriable and must come after the pivot {saga.steps[pivot].name!r}"
                )


def _fingerprint(saga: Saga) -> str:
    """A short digest of all that a running saga's snapshot depends on: the graph, the handlers, the policy."""
    graph = [[s.name, s.service, s.action, s.compensation, sorted(set(s.after)), s.kind.value] for s in saga.steps]
    text = json.dumps([saga.name, saga.version, saga.siblings.value, graph], separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
