"""Makes a failing life small: leaves out faults and load for as long as it still fails in the same way."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from typing import TypeVar

from scenarios.chaos.faults import Fault
from scenarios.chaos.kill import Kill
from scenarios.chaos.plan import FaultPlan

MAX_ATTEMPTS = 400
_CHANCES = ("swallow", "starts", "throws", "refuses")  # kinds whose value is a probability

T = TypeVar("T")
Fails = Callable[[FaultPlan], bool]


def shrink(plan: FaultPlan, fails: Fails, max_attempts: int = MAX_ATTEMPTS) -> tuple[FaultPlan, int]:
    """The smallest plan found within so many attempts, and how many were made.

    Removing one thing shifts every later draw of the life, so each candidate is lived anew, and kept only if it
    fails too.
    """
    attempts = 0
    again = True
    while again and attempts < max_attempts:
        again = False
        for candidate in _smaller(plan):
            if attempts >= max_attempts:
                break
            attempts += 1
            if fails(candidate):
                plan, again = candidate, True
                break
    return plan, attempts


def _smaller(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Simpler plans, those that save most first."""
    if plan.faults and plan.kills:
        yield replace(plan, kills=())
    for faults in _subsets(plan.faults):
        yield replace(plan, faults=faults)
    for kills in _subsets(plan.kills):
        yield replace(plan, kills=kills)
    for orders in sorted({1, 2, plan.orders // 2, plan.orders - 1}):
        if 0 < orders < plan.orders:
            yield replace(plan, orders=orders, concurrency=min(plan.concurrency, orders))
    if plan.concurrency > 1:
        yield replace(plan, concurrency=1)
    if plan.brisk:
        yield replace(plan, brisk=0)
    if plan.split:
        yield replace(plan, split=False)
    if plan.drain:
        yield replace(plan, drain=False)
    if plan.sequential:
        yield replace(plan, sequential=False)
    yield from _milder(plan)


def few_of(plan: FaultPlan, most: int) -> Iterator[FaultPlan]:
    """The plan with one of its faults, with each two of them, and so on up to `most`."""
    things: list[Kill | Fault] = [*plan.kills, *plan.faults]
    for size in range(1, min(most, len(things) - 1) + 1):
        for chosen in combinations(things, size):
            kills = tuple(kill for kill in chosen if isinstance(kill, Kill))
            faults = tuple(fault for fault in chosen if isinstance(fault, Fault))
            yield replace(plan, kills=kills, faults=faults)


def _subsets(things: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """Without half of them, a quarter, ... and without each one."""
    size = len(things)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(things), size):
            if rest := things[:start] + things[start + size :]:
                yield rest
    if len(things) == 1:
        yield ()


def _milder(plan: FaultPlan) -> Iterator[FaultPlan]:
    """The same faults, once instead of several times, and without their chances: so that less load is needed."""
    for i, fault in enumerate(plan.faults):
        before, after = plan.faults[:i], plan.faults[i + 1 :]
        if fault.kind == "crash" and fault.count > 1:
            yield replace(plan, faults=(*before, replace(fault, count=1), *after))
        if fault.kind in _CHANCES and fault.value < 1:
            yield replace(plan, faults=(*before, replace(fault, value=1.0), *after))


def kind_of(violation: str) -> str:
    """What a violation is about, without reasons, ids and numbers, which differ from life to life."""
    return re.sub(r"\S*\d\S*", "#", violation.partition(" (")[0])[:60]
