"""What a ledger can hold of a step, by where its saga stands: `check` allows what can be, and nothing else."""

from itertools import product
from typing import Any

from actors.definition import Siblings
from actors.participant import Mark
from actors.state import Status
from scenarios.check_services import POSSIBLE
from tests.actors.model import Bounds, Checker, World
from tests.actors.properties import BrokenError
from tests.actors.test_model import saga as saga_of_shape


class Pairs(Checker):
    """The exhaustive model, looking at each step's status and its ledger's mark in every world."""

    def __init__(self, *arguments: Any) -> None:
        self.pairs: set[tuple[Status, Mark | None]] = set()
        super().__init__(*arguments)

    def _check_world(self, world: World) -> None:
        super()._check_world(world)
        for step, number in zip(self.about[world[0]].state.steps, world[2:], strict=True):
            mark = self.cells.values[number].mark
            pair = (step.status, None if mark is None else mark[0])
            if pair[1] not in POSSIBLE[step.status]:
                raise BrokenError(f"a ledger can hold {pair[1]} of a step that is {pair[0]}")
            self.pairs.add(pair)


def test_every_possible_pair_is_allowed_and_no_other() -> None:
    """The table of what a ledger can hold is exactly what all reachable worlds of small sagas come to."""
    found = set()
    for shape, siblings, bounds in product(
        ("c c", "c c0", "c p0", "c p0 r1", "p r0"),
        Siblings,
        (
            Bounds(twins=True, resumes=1, refuse_all=True),
            Bounds(twins=True, gaps=True),
            Bounds(twins=True, resumes=1, holds=True),
        ),
    ):
        pairs = Pairs(saga_of_shape(shape, siblings=siblings), bounds)
        pairs.run()
        found |= pairs.pairs
    assert found == {(status, mark) for status, marks in POSSIBLE.items() for mark in marks}
