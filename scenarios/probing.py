"""Asks a broker that is up whether it still stores messages.

After its disk has been full, nats-server goes on refusing to write to the streams that it could not write to, however
much room there is, until it is started again. It answers pings meanwhile, and no publication to those streams.
"""

import asyncio
from functools import partial
from secrets import token_hex

from broker import codec, subjects
from broker.port import Broker, PublishError
from scenarios.load import CLIENT
from scenarios.scenario import COORDINATOR_NAME, Domain

NOTHING = codec.join([])
"""A message of no envelopes: whoever is given it acknowledges it, and nothing else happens."""


async def unstored(broker: Broker, domain: Domain) -> list[str]:
    """The subjects, one a stream, on which a message was not acknowledged within the broker's time for that."""
    asked = [
        subjects.start(next(iter(domain.sagas))),
        subjects.command(domain.entry_service),
        subjects.reply(CLIENT),
        subjects.control(COORDINATOR_NAME),
        subjects.event(next(iter(domain.sagas))),
    ]
    return [subject for subject in await asyncio.gather(*(_refused(broker, subject) for subject in asked)) if subject]


async def _refused(broker: Broker, subject: str) -> str:
    """The subject, if a message was not stored there; else ""."""
    outcome: asyncio.Future[PublishError | None] = asyncio.get_running_loop().create_future()
    broker.publish(subject, NOTHING, f"probe-{token_hex(8)}", partial(_settle, outcome))
    return "" if await outcome is None else subject


def _settle(outcome: asyncio.Future[PublishError | None], error: PublishError | None) -> None:
    if not outcome.done():
        outcome.set_result(error)
