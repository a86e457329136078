"""What a single commit and a single hop through the broker take, with nothing around them."""

import asyncio
import time
from functools import partial
from pathlib import Path

import lmdb

from actors.definition import Kind, Saga
from broker import subjects
from broker.codec import join
from broker.jetstream import JetStream
from broker.port import Delivery, PublishError
from persistence.group_commit import CommitThread
from scenarios.bench.relay import MAP_BYTES
from scenarios.view import percentiles_ms

TIMES = 200  # fewer than a consumer may leave unacknowledged
ROWS, ROW_BYTES = 3, 300  # of a commit: about a snapshot, a journal entry, a ledger entry
ENVELOPE_BYTES = 150
_SUBJECT = "bench"


async def commit_ms(directory: Path) -> dict[str, float]:
    """One LMDB transaction of a few rows with full sync, given to what commits in a node."""
    loop = asyncio.get_running_loop()
    database = lmdb.open(str(directory), map_size=MAP_BYTES, readahead=False)
    thread = CommitThread(loop)
    took = []
    try:
        for i in range(TIMES):
            done: asyncio.Future[BaseException | None] = loop.create_future()
            begun = time.perf_counter()
            thread(partial(_commit, database, thread, i), done.set_result)
            error = await done
            if error is not None:
                raise error
            took.append(time.perf_counter() - begun)
    finally:
        thread.close()
        database.close()
    return percentiles_ms(took)


def _commit(database: lmdb.Environment, thread: CommitThread, i: int) -> None:
    with database.begin(write=True) as txn:
        for row in range(ROWS):
            txn.put(b"%08d-%d" % (i, row), bytes(ROW_BYTES))
        thread.written()


async def hop_ms(broker: JetStream) -> dict[str, float]:
    """From publishing one message into a stream to its delivery, one after another; acknowledged only at the end."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    subscription = broker.consume(subjects.controls(_SUBJECT), arrived.put_nowait)
    payload = join([bytes(ENVELOPE_BYTES)])
    took, delivered = [], []
    try:
        for i in range(TIMES + 1):
            begun = loop.time()
            broker.publish(subjects.control(_SUBJECT), payload, f"bench-{i}", _stored)
            delivered.append(await arrived.get())
            took.append(loop.time() - begun)
        for delivery in delivered:
            delivery.ack()
    finally:
        subscription.close()
    return percentiles_ms(took[1:])  # the first waits for its consumer to be made


def _stored(error: PublishError | None) -> None:
    if error is not None:
        raise error


def chain_to_pivot(saga: Saga) -> tuple[int, int]:
    """How many commits and hops follow one another from an order's placing to the news that its pivot is done.

    The order is taken in, its saga starts, and each level of steps is asked for, done, answered and saved; the news
    is one hop more.
    """
    levels = _depth(saga, next(step.name for step in saga.steps if step.kind is Kind.PIVOT))
    return 2 + 2 * levels, 3 + 2 * levels


def _depth(saga: Saga, name: str) -> int:
    step = saga.steps[saga.index[name]]
    return 1 + max((_depth(saga, before) for before in step.after), default=0)
