"""Which sagas of a run are worth a look, and why. Pure."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from scenarios.report.facts import Facts, Order

MAX_SAGAS = 12
_OF_EACH = 3  # of each reason; of faults, one each


@dataclass(frozen=True, slots=True)
class Choice:
    """An order whose saga is shown; which faults it has lived over shows in its picture."""

    order: Order
    reasons: list[str]


def choose(facts: Facts) -> list[Choice]:
    """At most `MAX_SAGAS`: named by a violation, not ended, compensated, in flight when a fault came, slowest."""
    chosen: dict[str, Choice] = {}
    for order, reason in _candidates(facts):
        if order.saga_id in chosen or len(chosen) < MAX_SAGAS:
            chosen.setdefault(order.saga_id, Choice(order, [])).reasons.extend(filter(None, [reason]))
    return list(chosen.values())


def _candidates(facts: Facts) -> Iterator[tuple[Order, str]]:
    by_length = sorted((order for order in facts.orders if order.is_saga), key=_seconds, reverse=True)
    accused = _accused(facts)
    named = (order for order in facts.orders if order.saga_id in accused and order.end != "rejected")
    yield from _some(named, "named by a violation")
    yield from _some((order for order in facts.orders if order.ended_at is None), "not ended")
    yield from _some((order for order in by_length if order.end == "compensated"), "compensated")
    for fault in facts.faults:
        crossed = [order for order in by_length if fault.at is not None and order.lived_at(fault.at)]
        yield from ((order, "") for order in crossed[:1])
    yield from _some(by_length, "among the slowest")


def _some(orders: Iterable[Order], reason: str) -> Iterator[tuple[Order, str]]:
    return ((order, reason) for order in islice(orders, _OF_EACH))


def _accused(facts: Facts) -> set[str]:
    """The words of the violations: saga ids are among them."""
    words: set[str] = set()
    for violation in facts.result.violations:
        words.update(re.findall(r"[A-Za-z0-9_-]+", violation))
    return words


def _seconds(order: Order) -> float:
    return 0.0 if order.ended_at is None else order.ended_at - order.sent_at
