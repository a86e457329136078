"""What an operator does once the cause is mended: resumes what is parked."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from actors.messages import RESUME, Control, to_envelope
from broker import subjects
from broker.batching import Batcher
from broker.port import Broker
from scenarios.chaos.plan import MAX_RESUMES
from scenarios.scenario import COORDINATOR_NAME

RESUME_SECONDS = 1.0  # between two of them


class Operator:
    """Resumes each parked saga a few times; one that is parked even then may stay so."""

    def __init__(self, broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        self._batcher = Batcher(broker, loop.call_soon, origin="operator")
        self._now = loop.time
        self._resumes: Counter[str] = Counter()
        self._resumed_at: dict[str, float] = {}

    def resume(self, parked: Iterable[str]) -> bool:
        """Resume those that are due. True while there is one that may still be helped."""
        waits = False
        for saga_id in parked:
            if self._resumes[saga_id] >= MAX_RESUMES:
                continue
            waits = True
            if self._now() - self._resumed_at.get(saga_id, -RESUME_SECONDS) >= RESUME_SECONDS:
                self._resumes[saga_id] += 1
                self._resumed_at[saga_id] = self._now()
                self._batcher.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, RESUME)))
        return waits
