"""What JetStream adds to the port: clear errors, and coming back after whatever happens to the server."""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from broker import jetstream_api as api
from broker import jetstream_link, subjects
from broker.jetstream_consume import deliveries_of
from broker.port import BrokerError, Consumer, PublishError, StreamConflictError
from tests.broker.labs import Bell, Ear, Outcome, run
from tests.broker.served import STOCK, ask, connected, publish, running, start_publishing


def test_streams_are_made_once(binary: Path, tmp_path: Path) -> None:
    """Making the streams again, by any node, changes nothing."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            await publish(jetstream, Bell(), 1)
            async with connected(server) as other:
                await other.ensure_streams()
                assert await other.stream_messages("SAGA_COMMAND") == 1
            await jetstream.purge_all()
            assert await jetstream.stream_messages("SAGA_COMMAND") == 0

    run(main())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"name": "SAGA_COMMAND", "subjects": ["saga.command.*"]}, "retention is 'limits', needed is 'workqueue'"),
        ({"name": "SAGA_COMMAND", "subjects": ["x.*"], "retention": "workqueue"}, r"subjects is \['x.\*'\]"),
        ({"name": "THEIRS", "subjects": ["saga.>"]}, "held by THEIRS"),
    ],
)
def test_a_conflicting_stream_is_named(binary: Path, tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    """A stream that exists and cannot serve us is an error that names what differs."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            await ask(server, f"STREAM.CREATE.{config['name']}", {"storage": "file", **config})
            with pytest.raises(StreamConflictError, match=reason):
                async with connected(server):
                    pass

    run(main())


def test_a_compatible_stream_is_taken(binary: Path, tmp_path: Path) -> None:
    """Ages and sizes are the operator's to choose."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            config = {"name": "SAGA_EVENT", "subjects": ["saga.event.*"], "storage": "memory", "max_msgs": 10}
            await ask(server, "STREAM.CREATE.SAGA_EVENT", config)
            async with connected(server) as jetstream:
                assert await jetstream.stream_messages("SAGA_EVENT") == 0

    run(main())


def test_a_conflicting_consumer_is_named(binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A durable of ours that hears something else is an error in the log that names the difference."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            config = {"durable_name": "stock", "filter_subject": "saga.command.bank", "ack_policy": "explicit"}
            body = {"stream_name": "SAGA_COMMAND", "config": config}
            await ask(server, "CONSUMER.DURABLE.CREATE.SAGA_COMMAND.stock", body)
            said = asyncio.Event()
            logger = logging.getLogger("sagasim.broker")

            def watch(record: logging.LogRecord) -> bool:
                if record.levelno == logging.ERROR:
                    said.set()
                return True

            logger.addFilter(watch)
            try:
                jetstream.consume(Consumer("stock", STOCK), Ear(Bell()))
                await said.wait()
            finally:
                logger.removeFilter(watch)

    run(main())
    assert "consumer stock exists and cannot serve us: filter_subject is 'saga.command.bank'" in caplog.text


def test_a_consumer_is_brought_up_to_date(binary: Path, tmp_path: Path) -> None:
    """A durable that exists with another ack wait or limit gets ours."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            for limit in (5, 7):
                ear = Ear(bell)
                pull = jetstream.consume(Consumer("stock", STOCK, 20.0, limit), ear)
                await publish(jetstream, bell, 1, f"limit {limit}")
                await ear.hears(1)
                pull.close()
                await pull.closed()
                found = await ask(server, "CONSUMER.INFO.SAGA_COMMAND.stock")
                assert found["config"]["max_ack_pending"] == limit

    run(main())


def test_who_may_not_remove_a_consumer_goes_on_with_it(
    binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor whose account may not delete says so, and hears what is left when its ack wait is over."""

    async def refusing(client: Any, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if "DELETE" in operation:
            raise api.ApiError(f"JetStream refused {operation}")
        return await request(client, operation, body)

    request = api.request
    monkeypatch.setattr(api, "request", refusing)
    consumer = Consumer("stock", STOCK, ack_wait_seconds=0.5, takes_over=True)

    async def main() -> None:
        bell = Bell()
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            first, second = Ear(bell, acks=False), Ear(bell)
            subscription = jetstream.consume(consumer, first)
            await publish(jetstream, bell, 1)
            await first.hears(1)
            subscription.close()
            jetstream.consume(consumer, second)
            await second.hears(1)
            assert second.payloads == first.payloads
            assert "consumer stock stays as it was left" in caplog.text

    run(main())


def test_only_new_skips_the_past(binary: Path, tmp_path: Path) -> None:
    """A consumer for new messages does not hear what was there before it, and vanishes after its time."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            await publish(jetstream, bell, 3, "old")
            ear = Ear(bell)
            consumer = subjects.events("dashboard", inactive_seconds=300.0, only_new=True)
            stored = Outcome(bell)
            jetstream.publish(subjects.event("order"), b"old", "old", stored)
            await stored.known()
            jetstream.consume(consumer, ear)
            number = 0
            while not ear.deliveries:
                number += 1
                outcome = Outcome(bell)
                jetstream.publish(subjects.event("order"), b"new", f"new {number}", outcome)
                await outcome.known()
            assert set(ear.payloads) == {b"new"}
            found = await ask(server, "CONSUMER.INFO.SAGA_EVENT.dashboard")
            assert found["config"]["inactive_threshold"] == 300 * 10**9

    run(main())


@pytest.mark.parametrize(
    ("reply", "deliveries"),
    [
        ("$JS.ACK.STREAM.durable.3.10.11.1700000000.5", 3),
        ("$JS.ACK._.HASH.STREAM.durable.4.10.11.1700000000.5", 4),
        ("$JS.ACK.hub.HASH.STREAM.durable.12.10.11.1700000000.5.RANDOM", 12),
    ],
)
def test_deliveries_are_read_from_every_form_of_ack_subject(reply: str, deliveries: int) -> None:
    """Ack subjects of old and new servers, with and without domain and account, tell the same."""
    assert deliveries_of(reply) == deliveries


# Coming back


def test_nothing_stored_is_lost_when_the_server_is_killed(binary: Path, tmp_path: Path) -> None:
    """After kill -9 and a restart on its store, all that was acknowledged is delivered, on the same consumer."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            ear = Ear(bell)
            jetstream.consume(Consumer("stock", STOCK, ack_wait_seconds=1.0), ear)
            await publish(jetstream, bell, 50, "before")
            await ear.hears(50)
            server.kill()
            await server.wait()
            await server.start()
            after = await publish(jetstream, bell, 50, "after")
            await bell.until(lambda: set(after) <= set(ear.payloads))

    run(main())


def test_stored_messages_survive_a_kill_unheard(binary: Path, tmp_path: Path) -> None:
    """What was acknowledged to its publisher right before a kill -9 is there for a consumer that comes later."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            payloads = await publish(jetstream, bell, 1000)
            server.kill()
            await server.wait()
            await server.start()
            ear = Ear(bell)
            jetstream.consume(Consumer("stock", STOCK), ear)
            await ear.hears(1000)
            assert ear.payloads == payloads

    run(main())


def test_publications_in_flight_survive_a_kill_once(binary: Path, tmp_path: Path) -> None:
    """What was in flight at a kill -9 is sent again under its id after the restart, and is stored once."""

    async def main() -> None:
        async with (
            running(tmp_path, binary) as server,
            connected(server, publish_timeout_seconds=20.0) as jetstream,
        ):
            bell = Bell()
            outcomes = start_publishing(jetstream, bell, 3000, "flight")
            await bell.until(lambda: any(outcome.calls for outcome in outcomes.values()))
            server.kill()
            await server.wait()
            await server.start()
            await bell.until(lambda: all(outcome.calls for outcome in outcomes.values()))
            assert all(outcome.stored for outcome in outcomes.values())
            assert await jetstream.stream_messages("SAGA_COMMAND") == 3000

    run(main())


def test_publishing_without_a_server_times_out(
    binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While the server is away a publish fails at its timeout, once; after its return the next one is stored.

    The log has one line for the loss and one for the return, without credentials.
    """
    caplog.set_level(logging.INFO, "sagasim.broker")

    async def main() -> None:
        async with (
            running(tmp_path, binary) as server,
            connected(server, publish_timeout_seconds=0.5) as jetstream,
        ):
            bell = Bell()
            server.kill()
            await server.wait()
            outcomes = start_publishing(jetstream, bell, 3, "lost")
            await bell.until(lambda: all(outcome.calls for outcome in outcomes.values()))
            assert all(isinstance(outcome.error, PublishError) for outcome in outcomes.values())
            assert "not acknowledged within 0.5 s" in str(outcomes[b"lost 0"].error)
            assert not jetstream.connected
            with pytest.raises(BrokerError, match="no connection"):
                await jetstream.stream_messages("SAGA_COMMAND")
            await server.start()
            late = Outcome(bell)
            while not late.stored:
                late = Outcome(bell)
                jetstream.publish(STOCK, b"late", "late", late)
                await late.known()
            assert all(outcome.calls == 1 for outcome in outcomes.values())
            password = server.url.split("@")[0].rpartition(":")[2]
            assert password not in caplog.text

    run(main())
    messages = [record.getMessage() for record in caplog.records]
    assert sum("lost the connection" in message for message in messages) == 1
    assert sum("again" in message and "connected to" in message for message in messages) == 1
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("operation", ["CONSUMER.DELETE.SAGA_COMMAND.stock", "STREAM.DELETE.SAGA_COMMAND"])
def test_what_an_operator_deletes_is_made_again(binary: Path, tmp_path: Path, operation: str) -> None:
    """A consumer or stream that is deleted while the connection stays up comes back, and delivery goes on."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            ear = Ear(bell)
            jetstream.consume(Consumer("stock", STOCK), ear)
            await publish(jetstream, bell, 1)
            await ear.hears(1)
            await ask(server, operation)
            number = 0
            while b"new" not in ear.payloads:
                number += 1
                outcome = Outcome(bell)
                jetstream.publish(STOCK, b"new", f"new {number}", outcome)
                await outcome.known()
                if outcome.stored:
                    await bell.until(lambda: b"new" in ear.payloads)

    run(main())


def test_a_server_that_hangs_is_given_up(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops answering without closing the connection is noticed, and found again when it resumes."""
    monkeypatch.setattr(jetstream_link, "_PING_SECONDS", 0.2)

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            bell = Bell()
            lost = asyncio.Event()
            jetstream._link.on_lost.append(lost.set)
            suspend(server.pid, True)
            try:
                await lost.wait()
            finally:
                suspend(server.pid, False)
            await publish(jetstream, bell, 1)

    run(main())


def suspend(pid: int, stopped: bool) -> None:
    os.kill(pid, signal.SIGSTOP if stopped else signal.SIGCONT)


def test_closing_fails_what_still_waits(binary: Path, tmp_path: Path) -> None:
    """Close reports every publication that is not stored, once, and later ones at once."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            bell = Bell()
            async with connected(server) as jetstream:
                server.kill()
                await server.wait()
                outcomes = start_publishing(jetstream, bell, 3, "waiting")
            assert [outcome.calls for outcome in outcomes.values()] == [1, 1, 1]
            assert all(outcome.error for outcome in outcomes.values())
            late = Outcome(bell)
            jetstream.publish(STOCK, b"late", "late", late)
            await late.known()
            assert "closed" in str(late.error)
            assert len(asyncio.all_tasks()) == 2, "tasks beside this one and the one that bounds it"

    run(main())
