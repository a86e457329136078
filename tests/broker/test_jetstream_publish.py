"""What a connection sends, and in which order."""

from pathlib import Path

import nats
from nats.aio.msg import Msg

from broker import subjects
from broker.port import Consumer, Delivery
from tests.broker.labs import Bell, Outcome, run
from tests.broker.served import STOCK, connected, publish, running

REPLY = subjects.reply("main")
ACK = "$JS.ACK"


def test_an_acknowledgement_goes_behind_what_is_published_next_or_soon_by_itself(
    binary: Path, tmp_path: Path
) -> None:
    """Nobody waits for it, and to send it alone costs as much as a message; but it is never kept back for long."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell, order = Bell(), list[str]()

            async def note(message: Msg) -> None:
                if message.subject == REPLY or message.subject.startswith(ACK):
                    order.append(message.subject[: len(ACK)] if message.subject != REPLY else REPLY)
                    bell.ring()

            client = await nats.connect(server.url)
            await client.subscribe(">", cb=note)
            await client.flush()

            def answer(delivery: Delivery) -> None:
                delivery.ack()
                if delivery.payload == b"with a reply 0":
                    jetstream.publish(REPLY, b"reply", "reply", Outcome(bell))

            jetstream.consume(Consumer("stock", STOCK), answer)
            await publish(jetstream, bell, 1, "with a reply")
            await bell.until(lambda: len(order) == 2)
            assert order == [REPLY, ACK]
            await publish(jetstream, bell, 1, "alone")
            await bell.until(lambda: len(order) == 3)
            assert order[2] == ACK
            await client.close()

    run(main())
