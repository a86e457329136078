"""`Rehydration`: brings unfinished sagas back page by page, no faster than services, broker and store can follow."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from actors.admission import LOOK_SECONDS, Admission
from actors.limits import Limits
from actors.node import Node
from persistence import snapshots
from persistence.group_commit import nothing

logger = logging.getLogger("sagasim.rehydration")

GROWTH: Final = 0.8
"""So many for each one in flight more a second: twice as many within a second, since they were in flight before."""
BROKER_LOOK_SECONDS: Final = 0.01
"""How soon to look again whether the broker has acknowledged what has been published."""


class Rehydration:
    """Goes through the unfinished sagas in the order of their ids, once in a coordinator's life.

    `revive` brings one back from its snapshot; False if that asks nothing of anybody. `tell_to_go_on` has `go_on`
    called in a turn of the supervisor's.
    """

    def __init__(
        self,
        node: Node,
        limits: Limits,
        admission: Admission,
        revive: Callable[[str, bytes], bool],
        tell_to_go_on: Callable[[], None],
    ) -> None:
        self._node = node
        self._limits = limits
        self._admission = admission
        self._revive = revive
        self._tell_to_go_on = tell_to_go_on
        self._up_to: str | None = ""  # the id of the last that was looked at; None when all are back
        self._went_on_at = node.loop.time()

    def go_on(self) -> None:
        """Bring back some, then the next when broker and services can follow."""
        if self._up_to is None:
            return
        if self._node.batcher.unacknowledged > self._limits.unacknowledged_publishes:
            self._go_on_later(BROKER_LOOK_SECONDS)
            return
        if self._node.keep_from_gc is not None:
            self._node.keep_from_gc()
        now = self._node.loop.time()
        allowance = self._admission.allowance(GROWTH, now - self._went_on_at)
        self._went_on_at = now
        limit = min(allowance, self._limits.rehydration_page)
        with self._node.environment.read() as tx:
            page = snapshots.scan_active(tx, self._up_to, limit)
        for saga_id, snapshot in page:
            self._up_to = saga_id
            allowance -= self._revive(saga_id, snapshot)
        if len(page) < limit:
            self._up_to = None
            logger.info("%s: %d unfinished sagas are back", self._node.name, self._node.counters["rehydrated"])
        else:
            self._go_on_later(0.0 if allowance else LOOK_SECONDS)

    def _go_on_later(self, delay_seconds: float) -> None:
        """In turn behind those that have come back just now, and behind what they have submitted."""

        def go_on(_: object, error: BaseException | None) -> None:
            if error is None:
                self._tell_to_go_on()

        submit = partial(self._node.committer.submit, nothing, go_on)
        self._node.loop.call_later(delay_seconds, self._node.turns.call_soon, submit)
