"""Faults of one kind that overlap on one thing: none of them ends another."""

from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any


class InForce:
    """What faults have set on each thing and not ended yet."""

    def __init__(self) -> None:
        self._held: defaultdict[Hashable, list[Any]] = defaultdict(list)

    def begin(self, what: Hashable, value: Any, apply: Callable[[list[Any]], None]) -> Callable[[], None]:
        """From now on `value` is in force on a thing, until what is returned is called. `apply` hears all values that
        are, now and then; an empty list if none is left."""
        held = self._held[what]
        held.append(value)
        apply(held)

        def end() -> None:
            held.remove(value)
            apply(held)

        return end
