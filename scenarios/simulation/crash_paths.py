"""The ways that a saga can go while nodes crash: to its end, back from each step or by a cancel, parked, never begun.

A path is laid over any scenario: its services keep their code, and one step of the last saga is refused, or
faults, after its handler has written: so that a rollback has something to roll back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from typing import Any, Final

from actors.definition import Kind, Saga, Step
from actors.handlers import Refused, ServiceHandlers, action, compensation
from actors.messages import Command
from scenarios.chaos.trouble import Spared
from scenarios.scenario import PLACE, Conduct, Domain, Fate, Request, Scenario

_DRAWS: Final = 64
_ATTEMPTS: Final = 2  # of a step that is to run out of them: with more, a run repeats itself and takes longer


@dataclass(frozen=True, slots=True)
class Path:
    """One way, and what must become of a saga that goes it.

    `at_step` is refused, or faults until it is out of attempts; so does the undo of `undo_of`. A saga that `parks` by
    that is resumed, and they do well then.
    """

    name: str
    fate: Fate
    at_step: str = ""
    faults: bool = False
    undo_of: str = ""
    parks: bool = False
    cancel_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """So many sagas at once, the last of which goes the path; the others go to their good end beside it."""

    path: Path
    sagas: int

    @property
    def name(self) -> str:
        return f"{self.path.name}.{self.sagas}"


AS_DRAWN: Final = "as-drawn"
SUCCESS: Final = "success"


def base_request(scenario: Scenario, seed: int) -> Request:
    """A request of the scenario that completes when nothing is in its way; the first one if there is none."""
    drawn = [scenario.load(Random(f"{seed}/{i}"), i) for i in range(_DRAWS)]
    for fate in (Fate.COMPLETED, Fate.EITHER):
        for request in drawn:
            if request.fate is fate:
                return replace(request, fate=Fate.COMPLETED, cancel_after_seconds=None)
    return drawn[0]


def first_path(request: Request) -> Path:
    """The path on which nothing is put in the saga's way."""
    if request.fate is Fate.COMPLETED:
        return Path(SUCCESS, Fate.COMPLETED)
    return Path(AS_DRAWN, request.fate, cancel_after_seconds=request.cancel_after_seconds)


def failing_paths(saga: Saga, spared: Spared, pivot_after_seconds: float | None) -> list[Path]:
    """Every way in which a saga of this definition can fail to complete, and its cancel too late.

    `pivot_after_seconds` is how long after its start a saga was past its pivot, as its client heard it.
    `spared` actions are never refused.
    """
    paths = [Path("rejected", Fate.REJECTED, PLACE)]
    able = [step for step in saga.steps if (step.service, step.action) not in spared]
    refusable = [step.name for step in able if step.kind is not Kind.RETRIABLE]
    for step in saga.steps:
        if step.name in refusable:
            paths.append(Path(f"{step.name}-refused", Fate.COMPENSATED, step.name))
        if step.kind is Kind.PIVOT or (step.kind is Kind.COMPENSATABLE and _is_last(saga, step.name, refusable)):
            paths.append(Path(f"{step.name}-unknown", Fate.COMPENSATED, step.name, faults=True))
    paths += _parking_paths(saga, refusable)
    paths.append(Path("cancel", Fate.EITHER, cancel_after_seconds=0.0))
    if pivot_after_seconds is not None:
        paths.append(Path("cancel-late", Fate.EITHER, cancel_after_seconds=pivot_after_seconds))
    return paths


def _parking_paths(saga: Saga, refusable: Sequence[str]) -> Iterator[Path]:
    """Past the pivot a refusal, and on the way back an undo out of attempts: one of each, for they all park alike."""
    retriable = [step.name for step in saga.steps if step.kind is Kind.RETRIABLE]
    if retriable:
        yield Path(f"{retriable[-1]}-refused", Fate.COMPLETED, retriable[-1], parks=True)
    pivot_last = sorted(refusable, key=lambda name: saga.index[name] == saga.pivot)
    if len(pivot_last) > 1:
        *_, undone, refused = pivot_last
        yield Path(f"undo-{undone}-unknown", Fate.COMPENSATED, refused, undo_of=undone, parks=True)


def _is_last(saga: Saga, step: str, refusable: Sequence[str]) -> bool:
    """Whether no other step can be refused once this one is asked for: its undo must come from itself."""
    before = {step}
    for _ in saga.steps:  # as often as the longest chain is long
        before |= {needed for known in before for needed in saga.steps[saga.index[known]].after}
    return all(other in before for other in refusable)


def laid_over(scenario: Scenario, request: Request, case: Case) -> Scenario:
    """The scenario of one case: nothing of it is left to chance."""
    path = case.path
    # Where attempts are few, two crashes can use up those of a good saga too.
    beside = replace(request, fate=Fate.EITHER) if path.faults else request

    def load(_random: Random, i: int) -> Request:
        if i < case.sagas - 1:
            return beside
        return replace(request, fate=path.fate, cancel_after_seconds=path.cancel_after_seconds)

    return replace(
        scenario,
        load=load,
        domain=_domain(scenario.domain, case) if path.at_step else scenario.domain,
        orders=case.sagas,
        concurrency=case.sagas,
        faults=(),
    )


def _domain(domain: Domain, case: Case) -> Domain:
    path = case.path
    actions = frozenset(_actions(domain, path.at_step))
    undos = frozenset((step.service, str(step.compensation)) for step in _steps(domain, path.undo_of))

    def acting(conducts: Mapping[str, Conduct]) -> Sequence[ServiceHandlers]:
        made = domain.services(conducts)
        for service in made:
            if any(service.name == name for name, _ in actions | undos):
                object.__setattr__(service, "__class__", _acting(type(service), service.name, case, actions, undos))
        return made

    if not (path.faults or path.undo_of):
        return replace(domain, services=acting)
    sagas = {name: replace(saga, steps=tuple(_impatient(saga, path))) for name, saga in domain.sagas.items()}
    return replace(domain, services=acting, sagas=sagas)


def _steps(domain: Domain, name: str) -> list[Step]:
    """The steps of this name, in whichever saga."""
    return [step for saga in domain.sagas.values() for step in saga.steps if step.name == name]


def _actions(domain: Domain, step_name: str) -> list[tuple[str, str]]:
    """The services and their handlers that a step of this name may come to."""
    if step_name == PLACE:
        return [(domain.entry_service, domain.entry_action)]
    return [(step.service, step.action) for step in _steps(domain, step_name)]


def _impatient(saga: Saga, path: Path) -> Iterator[Step]:
    """The saga's steps, with few attempts for what is to run out of them."""
    for step in saga.steps:
        if step.name == path.at_step and path.faults:
            yield replace(step, retry=replace(step.do_retry, attempts=_ATTEMPTS))
        elif step.name == path.undo_of:
            yield replace(step, undo_retry=replace(step.undo_retry, attempts=_ATTEMPTS))
        else:
            yield step


@lru_cache(maxsize=256)
def _acting(
    cls: type, service: str, case: Case, actions: frozenset[tuple[str, str]], undos: frozenset[tuple[str, str]]
) -> type:
    """The service's class, with handlers that do their work and then refuse it, or throw."""
    path = case.path
    members: dict[str, object] = {"__slots__": (), "__module__": cls.__module__}
    members |= {
        name: action(_after(getattr(cls, name), path.at_step, case.sagas, path.faults))
        for home, name in sorted(actions)
        if home == service
    }
    members |= {
        name: compensation(_after(getattr(cls, name), path.undo_of, case.sagas, True))
        for home, name in sorted(undos)
        if home == service
    }
    return type(cls.__name__, (cls,), members)


def _after(original: Any, step: str, sagas: int, faults: bool) -> Any:
    """A handler that refuses, or throws, for the last of so many sagas, until that has parked and was resumed."""
    ending = f"-{sagas - 1:07d}"  # of the saga's id, as the load numbers them

    def run(self: object, transaction: object, command: Command, *recorded: object) -> object:
        value = original(self, transaction, command, *recorded)
        if command.step == step and command.saga_id.endswith(ending):
            if faults and command.attempt <= _ATTEMPTS:
                raise RuntimeError("told to throw")
            if not faults and command.round == 0:
                raise Refused("told to refuse")
        return value

    return run
