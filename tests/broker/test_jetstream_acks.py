"""Acknowledgements: they go together and a little later, and none of them is lost by that."""

import asyncio
import shutil
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from broker import jetstream_consume, subjects
from broker.jetstream import JetStream
from broker.port import Consumer
from tests.broker.labs import Bell, Ear, Outcome, run
from tests.broker.served import STOCK, connected, publish, running, until_left


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acks wait for ever."""
    monkeypatch.setattr(jetstream_consume, "_ANSWER_DELAY_SECONDS", 3600.0)


async def one_heard(jetstream: JetStream, bell: Bell) -> Ear:
    """One message has been delivered, and is not acknowledged."""
    ear = Ear(bell, acks=False)
    jetstream.consume(Consumer("stock", STOCK), ear)
    await publish(jetstream, bell, 1)
    await ear.hears(1)
    return ear


@pytest.mark.usefixtures("patient")
def test_an_ack_is_not_sent_with_what_is_published(binary: Path, tmp_path: Path) -> None:
    """It waits for others: nobody waits for it, and the server would deal with it beside the message."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell, heard = Bell(), list[str]()

            async def note(message: Msg) -> None:
                heard.append(message.subject)
                bell.ring()

            client = await nats.connect(server.url)
            await client.subscribe("$JS.ACK.>", cb=note)
            await client.flush()
            ear = Ear(bell)
            pull = jetstream.consume(Consumer("stock", STOCK), ear)
            await publish(jetstream, bell, 1)
            await ear.hears(1)
            for number in range(2):  # what went out with the first has come to the server before the second
                reply = Outcome(bell)
                jetstream.publish(subjects.reply("main"), b"reply", f"reply {number}", reply)
                await reply.known()
            await client.flush()
            assert not heard
            pull.close()
            await bell.until(lambda: len(heard) == 1)
            await client.close()

    run(main())


@pytest.mark.usefixtures("patient")
def test_an_ack_that_waits_when_the_connection_is_lost_goes_on_the_next(binary: Path, tmp_path: Path) -> None:
    """It is no more lost than one that is given during the outage."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            ear = await one_heard(jetstream, bell)
            ear.ack(ear.deliveries[0])
            await server.stop()
            await server.start()
            await publish(jetstream, bell, 1, "after")
            await ear.hears(2)
            await until_left(jetstream, 1)
            assert len(ear.deliveries) == 2

    run(main())


@pytest.mark.usefixtures("patient")
def test_a_wiped_store_is_made_anew(binary: Path, tmp_path: Path) -> None:
    """When the server comes back with an empty store, streams and consumers are made again and work goes on.

    An ack for a delivery of before the loss does not acknowledge a message of after it, whether it waited when the
    connection was lost, or was given later.
    """

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            ear = Ear(bell, acks=False)
            consumer = Consumer("stock", STOCK, ack_wait_seconds=0.5)
            pull = jetstream.consume(consumer, ear)
            await publish(jetstream, bell, 2, "old")
            await ear.hears(2)
            ear.ack(ear.deliveries[1])
            server.kill()
            await server.wait()
            shutil.rmtree(tmp_path / "broker" / "jetstream")
            await server.start()
            await publish(jetstream, bell, 2, "new")
            await bell.until(lambda: b"new 1" in ear.payloads)
            ear.ack(ear.deliveries[0])
            pull.close()  # sends all that waits
            again = Ear(bell)
            jetstream.consume(consumer, again)
            await bell.until(lambda: {*again.payloads} == {b"new 0", b"new 1"})

    run(main())


def test_an_ack_given_while_the_server_was_away_counts(binary: Path, tmp_path: Path) -> None:
    """An ack during an outage is sent after it: the message leaves its queue without being delivered again."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            ear = await one_heard(jetstream, bell)
            await server.stop()  # a kill might take what the server knew of its deliveries with it
            while jetstream.connected:  # an ack sent into a connection that is ending is lost
                await asyncio.sleep(0)
            ear.ack(ear.deliveries[0])
            await server.start()
            await publish(jetstream, bell, 1, "after")
            await ear.hears(2)
            ear.ack(ear.deliveries[1])
            await until_left(jetstream, 0)
            assert len(ear.deliveries) == 2

    run(main())


def test_close_sends_the_last_acks(binary: Path, tmp_path: Path) -> None:
    """An ack given right before close is sent, or when only its subscription is closed: nothing comes again."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            bell = Bell()
            async with connected(server) as jetstream:
                ear = Ear(bell, acks=False)
                pull = jetstream.consume(Consumer("stock", STOCK), ear)
                await publish(jetstream, bell, 5)
                await ear.hears(5)
                for delivery in ear.deliveries[:3]:
                    ear.ack(delivery)
                pull.close()
                for delivery in ear.deliveries[3:]:
                    ear.ack(delivery)
            async with connected(server) as jetstream:
                assert await jetstream.stream_messages("SAGA_COMMAND") == 0

    run(main())
