"""Takes a broker of somebody else's for a run: nobody may be at work there, and nothing of another run lie there."""

import asyncio

from broker import subjects
from broker.jetstream import JetStream
from broker.port import Consumer
from broker.subjects import STREAMS
from scenarios.load import CLIENT
from scenarios.scenario import COORDINATOR_NAME, Domain, ScenarioError

ASK_SECONDS = 0.2
MAX_ASKS = 11  # for two seconds: a node that was killed a moment ago may still be counted


async def take_broker(client: JetStream, domain: Domain, *, purge: bool, resumed: bool) -> None:
    """Make sure that a run can have the broker for itself; with `purge` drop what another one has left there.

    A run's nodes would take over the consumers of those at work, and have their messages, as these would have the
    run's. Raises ScenarioError if it cannot, before anything there is touched, and BrokerError.
    """
    consumers = consumers_of(domain)
    for _ in range(MAX_ASKS):
        busy = [consumer.durable for consumer in consumers if await client.is_pulled(consumer)]
        if not busy:
            break
        await asyncio.sleep(ASK_SECONDS)
    else:
        raise ScenarioError(
            f"other nodes are at work on this broker ({', '.join(busy)}): stop them first, or run on another broker"
        )
    if purge:  # also before a backup goes on with an older instant than the broker's messages
        await client.purge_all()
    elif not resumed:
        await _check_leftovers(client)


def consumers_of(domain: Domain) -> list[Consumer]:
    """The consumers of a run's nodes and of its client."""
    services = {step.service for saga in domain.sagas.values() for step in saga.steps} | {domain.entry_service}
    return [
        subjects.starts(),
        subjects.replies(COORDINATOR_NAME),
        subjects.controls(COORDINATOR_NAME),
        *map(subjects.commands, sorted(services)),
        subjects.replies(CLIENT),
    ]


async def _check_leftovers(client: JetStream) -> None:
    """Another run's messages would be taken for this one's."""
    held = 0
    for spec in STREAMS:
        if spec.retention == "workqueue":
            held += await client.stream_messages(spec.name)
    if held:
        raise ScenarioError(
            f"the broker still holds {held} messages of another run: resume that one with its --data,"
            " or drop them with --purge"
        )
