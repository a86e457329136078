"""The limit: a process that does a node's work with wire and disk by a recipe, without actors and without decisions.

It decodes each envelope with msgpack itself, writes the rows of the recipe into LMDB itself, commits what has
gathered with full sync, then encodes and sends what the recipe says, one message a subject. Of the product it uses
only the client of JetStream and the thread that commits, since any program would need the like.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import lmdb
import msgpack

from broker import subjects
from broker.batching import MAX_BATCH_ENVELOPES
from broker.codec import join
from broker.jetstream import JetStream
from broker.port import Consumer, Delivery, PublishError
from persistence.group_commit import CommitThread
from persistence.journal import JOURNAL, SEQUENCE_BYTES
from scenarios.bench.recipe import ANSWER, Recipe, Sent, Work, Write, read_recipe
from scenarios.held_directory import URL_FILE
from scenarios.scenario import COORDINATOR, COORDINATOR_NAME
from scenarios.serving import Access, ready_path

RECIPE_FILE = "recipe.msgpack"
MAP_BYTES = 8 << 30
_ENVELOPE_ID = 2  # where an envelope has the saga's id


class Row(NamedTuple):
    """A write as it is repeated: its key has the saga's id between two parts, or not at all."""

    table: str
    before: bytes
    after: bytes | None
    value: bytes | None

    def key(self, saga_id: bytes) -> bytes:
        return self.before if self.after is None else self.before + saga_id + self.after


class Task(NamedTuple):
    """What one message makes a relay do: a work made ready to be repeated for any saga."""

    rows: list[Row]
    sends: list[Sent]


def ready(work: Work, saga_id: str) -> Task:
    return Task([_row(write, saga_id.encode()) for write in work.writes], work.sends)


def _row(write: Write, saga_id: bytes) -> Row:
    table, key, value = write
    before, found, after = key.partition(saga_id)
    return Row(table, before, after if found else None, value)


Step = Callable[[str, list[Any]], Task]
"""The task of an envelope about a saga."""


def services_step(recipe: Recipe) -> Step:
    tasks = {step: ready(work, recipe.saga_id) for step, work in recipe.services.items()}
    return lambda _, envelope: tasks[ANSWER if envelope[1] == ANSWER else envelope[3]]


def coordinator_step(recipe: Recipe) -> Step:
    """By count: whichever message comes first is taken for the first."""
    tasks = [ready(work, recipe.saga_id) for work in recipe.coordinator]
    heard: dict[str, int] = {}

    def step(saga_id: str, _: list[Any]) -> Task:
        count = heard.pop(saga_id, 0)
        if count + 1 < len(tasks):
            heard[saga_id] = count + 1
        return tasks[count]

    return step


class Relay:
    """Gathers what is delivered, commits it as one group while the next gathers, sends and acknowledges.

    One that `merges` writes once a group what belongs together: a saga that hears several messages at a time is saved
    once.
    """

    def __init__(
        self, step: Step, database: lmdb.Environment, tables: Iterable[str], broker: JetStream, *, merges: bool
    ) -> None:
        self._step = step
        self._merges = merges
        self._database = database
        self._tables = {name: database.open_db(name.encode()) for name in tables}
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._thread = CommitThread(self._loop)
        self._pack = msgpack.Packer(autoreset=True).pack
        self._life = token_hex(8)
        self._published = 0
        self._gathered: list[Delivery] = []
        self._is_busy = False
        self.commits = 0
        self.works = 0

    def deliver(self, delivery: Delivery) -> None:
        self._gathered.append(delivery)
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Read what has gathered and commit its writes."""
        deliveries, self._gathered = self._gathered, []
        writes: list[Write] = []
        sends: list[tuple[str, Sent]] = []
        for delivery in deliveries:
            for envelope in msgpack.unpackb(delivery.payload):
                saga_id = envelope[_ENVELOPE_ID]
                task = self._step(saga_id, envelope)
                key = saga_id.encode()
                writes += [(row.table, row.key(key), row.value) for row in task.rows]
                sends += [(saga_id, sent) for sent in task.sends]
        if self._merges:
            writes = merged(writes)
        self._thread(lambda: self._commit(writes), lambda error: self._committed(error, deliveries, sends))

    def _commit(self, writes: list[Write]) -> BaseException | None:
        with self._database.begin(write=True) as txn:
            for table, key, value in writes:
                if value is None:
                    txn.delete(key, b"", self._tables[table])
                else:
                    txn.put(key, value, True, True, False, self._tables[table])
            self._thread.written()
        return None

    def _committed(
        self, error: BaseException | None, deliveries: list[Delivery], sends: list[tuple[str, Sent]]
    ) -> None:
        if error is not None:
            raise SystemExit(f"the limit's database failed: {error}")
        self.commits += 1
        self.works += len(deliveries)
        self._is_busy = bool(self._gathered)
        if self._is_busy:
            self._begin()
        self._send(sends)
        for delivery in deliveries:
            delivery.ack()

    def _send(self, sends: list[tuple[str, Sent]]) -> None:
        by_subject: dict[str, list[bytes]] = {}
        for saga_id, (subject, envelope) in sends:
            envelope[_ENVELOPE_ID] = saga_id
            by_subject.setdefault(subject, []).append(self._pack(envelope))
        for subject, encoded in by_subject.items():
            for i in range(0, len(encoded), MAX_BATCH_ENVELOPES):
                self._published += 1
                payload = join(encoded[i : i + MAX_BATCH_ENVELOPES])
                self._broker.publish(subject, payload, f"{self._life}-{self._published}", _must_be_stored)


def _must_be_stored(error: PublishError | None) -> None:
    if error is not None:
        raise SystemExit(f"the limit's broker failed: {error}")


def merged(writes: Iterable[Write]) -> list[Write]:
    """Of each row its latest value; and what a saga's journal is told in several rows, in one."""
    rows: dict[tuple[str, bytes], bytes | None] = {}
    journals: dict[bytes, bytes] = {}  # a saga's first row
    for table, key, value in writes:
        if table == JOURNAL:
            first = journals.setdefault(key[:-SEQUENCE_BYTES], key)
            rows[table, first] = (rows.get((table, first)) or b"") + (value or b"")
        else:
            rows[table, key] = value
    return [(*row, value) for row, value in rows.items()]


async def relay(role: str, data: Path) -> None:
    """Relay until SIGTERM or the parent's end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    recipe = read_recipe(data / RECIPE_FILE)
    step = coordinator_step(recipe) if role == COORDINATOR else services_step(recipe)
    (data / role).mkdir(mode=0o700)
    database = lmdb.open(str(data / role), map_size=MAP_BYTES, max_dbs=64, readahead=False, mode=0o600)
    broker = await Access((data / URL_FILE).read_text().strip()).connect(f"sagasim-limit-{role}")
    working = Relay(step, database, recipe.tables[role], broker, merges=role == COORDINATOR)
    for consumer in _consumers(role, recipe):
        broker.consume(consumer, working.deliver)
    ready_path(data, role).write_text(f"{os.getpid()}\n")
    await stop.wait()
    figures = {"commits": working.commits, "works": working.works}
    (data / role / "stats-1.json").write_text(json.dumps(figures))
    await broker.close()


def _consumers(role: str, recipe: Recipe) -> list[Consumer]:
    if role == COORDINATOR:
        return [subjects.starts(), subjects.replies(COORDINATOR_NAME)]
    services = {table.partition(".")[0] for table in recipe.tables[role]}
    return [subjects.commands(service) for service in sorted(services)]


def relay_node(role: str, data: Path) -> list[str]:
    """The words after `python` that make a process the limit's node of a role."""
    return ["-m", "scenarios.bench.relay", role, str(data)]


if __name__ == "__main__":
    gc.freeze()  # as a node of the product does
    gc.set_threshold(50_000, 20, 50)
    with suppress(KeyboardInterrupt):
        asyncio.run(relay(sys.argv[1], Path(sys.argv[2])))
