"""The acknowledgement of one delivery, shared by all that its envelopes cause."""

import logging
from collections.abc import Callable

from broker.port import Delivery

logger = logging.getLogger("sagasim.broker")

Probe = Callable[[str, object], None]
"""Called at each boundary with its name and what passes it: where a simulation injects its crashes.

`publish.before` and `publish.after` pass the list of envelopes, `ack.before` and `ack.after` the delivery.
"""


class Receipt:
    """Acknowledges a delivery once all that hold it have let go, and never if one of them failed.

    It starts with one hold, its creator's. An unacknowledged delivery comes again after the ack wait.
    """

    __slots__ = ("_delivery", "_failed", "_holds", "_probe")

    def __init__(self, delivery: Delivery, probe: Probe | None = None) -> None:
        self._delivery = delivery
        self._probe = probe
        self._holds = 1
        self._failed = False

    def hold(self) -> None:
        assert self._holds > 0, "held again after it was settled"
        self._holds += 1

    def release(self) -> None:
        """Let go of one hold; the last one acknowledges."""
        assert self._holds > 0, "released more often than held"
        self._holds -= 1
        if self._holds == 0 and not self._failed:
            self._acknowledge()

    def fail(self) -> None:
        """Let go of one hold and leave the delivery to come again."""
        if not self._failed:
            self._failed = True
            logger.warning("a message on %s is not acknowledged and will come again", self._delivery.subject)
        self.release()

    def _acknowledge(self) -> None:
        if self._probe is None:
            self._delivery.ack()
            return
        self._probe("ack.before", self._delivery)
        self._delivery.ack()
        self._probe("ack.after", self._delivery)
