"""What one event does to orders in flight, under one setting of the two syncs: struck, waited for, audited."""

import asyncio
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.messages import StartSaga, to_envelope
from broker import subjects
from broker.batching import Batcher
from broker.codec import unpack
from broker.jetstream import JetStream
from broker.port import PublishError
from scenarios.checking import check_directory
from scenarios.cluster import RUN_SIM
from scenarios.errors import ClusterError
from scenarios.load import SAGA_ENDS, Journey, Load
from scenarios.places import BROKER, COORDINATOR, SERVICES
from scenarios.shop import inventory, payment, shipping
from scenarios.shop.orders import PENDING, SAGA_INPUT
from scenarios.soak.ground import STALL_SECONDS, Ground, ground
from scenarios.stories import mixed
from scenarios.watching import Stores

REFERENCE, SEED, ORDERS = "mixed", 1, 1500
SCENARIO = replace(mixed.scenario, orders=ORDERS)
IN_FLIGHT = 200  # at least so many orders are on their way when it strikes
ENDED = 100  # and so many have ended
AFTERWARDS = 20  # orders are sent at once after it: the first of them to end says that all works again
WAVE, WAVE_SECONDS = 100, 0.01  # more than can end meanwhile
AGEING_WAVE, AGEING_WAVES_PER_SECOND = 20, 5  # after a backup
PROBE_SECONDS = 0.005
BACKUP_AGE_SECONDS = 3.0
QUIET_SECONDS = 10.0  # nothing has ended for so long: what is left does not end any more
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Setting:
    """Whether LMDB waits for the disk at each commit, and nats-server before each acknowledgement."""

    lmdb_sync: bool
    broker_sync: bool

    def __str__(self) -> str:
        lmdb = "LMDB full sync" if self.lmdb_sync else "LMDB `--no-sync`"
        return f"{lmdb}, JetStream {'`sync_interval: always`' if self.broker_sync else 'default'}"


@dataclass(slots=True)
class Outcome:
    """What came of it. Seconds count from the event. `works_again_seconds`: until a saga has ended whose order was
    sent after it; `all_ended_seconds`: until all that were in flight have.

    `lost` are orders, `messages_lost` of the `messages` that the broker had acknowledged, measured beside the load.
    `asked_again` counts commands, starts, orders, and sagas that came from their snapshots. `said` tells of what is
    wrong, and of what does not recover by itself.
    """

    event: str
    setting: str
    in_flight: int = 0
    lost: int = 0
    duplicate_effects: int = 0
    violations: int = 0
    messages: int = 0
    messages_lost: int = 0
    asked_again: int = 0
    works_again_seconds: float | None = None
    all_ended_seconds: float | None = None
    said: list[str] = field(default_factory=list)


async def measure(event: str, setting: Setting, data: Path) -> Outcome:
    """One cell, in a directory of its own. Raises ClusterError and the like if its cluster cannot be had."""
    outcome = Outcome(event, str(setting))
    if event in STRIKES:
        await _survive(STRIKES[event], outcome, setting, data)
    elif event == DISK_LOST:
        await _lose_disk(outcome, setting, data)
    else:
        await _restore(outcome, setting, data)
    return outcome


def _strike_everything(on: Ground) -> None:
    """What a loss of power comes to at worst, where LMDB waits for the disk."""
    on.strike_both()
    on.cluster.wipe_broker()


STRIKES: Mapping[str, Callable[[Ground], object]] = {
    "coordinator: SIGKILL": lambda on: on.cluster.strike(COORDINATOR),
    "services: SIGKILL": lambda on: on.cluster.strike(SERVICES),
    "both nodes at once: SIGKILL": lambda on: on.strike_both(),
    "broker: SIGKILL": lambda on: on.cluster.strike(BROKER),
    "broker: disk lost": lambda on: on.cluster.wipe_broker(),
    "everything at once: SIGKILL, broker's disk lost": _strike_everything,
}

DISK_LOST = "coordinator: disk lost"
RESTORED = "coordinator: disk lost, backup restored"
EVENTS = (*STRIKES, DISK_LOST, RESTORED)


def _prepared(setting: Setting, data: Path) -> AbstractAsyncContextManager[Ground]:
    return ground(
        SCENARIO,
        REFERENCE,
        data,
        SEED,
        concurrency=ORDERS,
        node_arguments=[] if setting.lmdb_sync else ["--no-sync"],
        sync_always=setting.broker_sync,
    )


async def _fill(on: Ground) -> None:
    """Bring orders into every stage of their way. Raises ClusterError if they end as fast as they can be sent."""
    load = on.load
    while load.under_way < IN_FLIGHT or len(load.ended) < ENDED:
        on.raise_failure()
        if load.done and not _may_send(load, WAVE):
            raise ClusterError(f"all {load.orders} orders have ended, and never were {IN_FLIGHT} on their way")
        _send_some(load, WAVE, 2 * IN_FLIGHT)
        await asyncio.sleep(WAVE_SECONDS)


def _send_some(load: Load, count: int, most_under_way: int) -> None:
    if load.under_way < most_under_way and _may_send(load, count):
        load.admit(count)


def _may_send(load: Load, count: int) -> bool:
    return load.orders + count <= ORDERS - AFTERWARDS


# --- what recovers by itself -------------------------------------------------------------------------------------


async def _survive(strike: Callable[[Ground], object], outcome: Outcome, setting: Setting, data: Path) -> None:
    async with _prepared(setting, data) as on:
        probe = _Probe(on.client)
        await _fill(on)
        in_flight, struck_at = on.load.waiting(), asyncio.get_running_loop().time()
        strike(on)
        on.load.admit(AFTERWARDS)
        complaint = await on.until_at_rest()
        await probe.end()
        outcome.messages = probe.acknowledged
        outcome.messages_lost = max(0, probe.acknowledged - await on.client.stream_messages("SAGA_DEAD"))
        await on.cluster.stop()
        findings = on.stores.audit(settled=True)
        wrong = [*findings.violations, *on.stores.impossible_sagas(), *on.load.wrong_ends(patient=False)]
        outcome.said = wrong if complaint is None else [complaint, *wrong]
        outcome.violations = len(outcome.said)
        outcome.lost = findings.lost + len(on.load.waiting())
        outcome.duplicate_effects = findings.duplicate_effects
        outcome.asked_again = _asked_again(on.stores, on.load)
        _take_times(outcome, in_flight, on.load, struck_at)


def _take_times(outcome: Outcome, in_flight: list[Journey], load: Load, struck_at: float) -> None:
    outcome.in_flight = len(in_flight)
    later = [_end_of(j) for j in load.ended if j.sent_at >= struck_at and j.end in SAGA_ENDS]
    outcome.works_again_seconds = round(min(later) - struck_at, 2) if later else None
    if all(journey.end for journey in in_flight):
        outcome.all_ended_seconds = round(max(map(_end_of, in_flight)) - struck_at, 2)


def _end_of(journey: Journey) -> float:
    assert journey.ended_at is not None
    return journey.ended_at


def _asked_again(stores: Stores, load: Load) -> int:
    """At least: of a life that was killed the last half second is not counted."""
    counters = stores.counters()
    asked = sum(counters.get(name, 0) for name in ("timeouts", "outbox_resent", "rehydrated"))
    return asked + sum(journey.attempt - 1 for journey in [*load.ended, *load.waiting()])


class _Probe:
    """A publisher whose messages nobody takes: what was acknowledged must still be there in the end."""

    def __init__(self, client: JetStream) -> None:
        self.acknowledged = 0
        self._sent = self._settled = 0
        self._client = client
        self._task = asyncio.create_task(self._publish())

    async def end(self) -> None:
        """Stop, and wait for the broker's last word."""
        self._task.cancel()
        while self._settled < self._sent:
            await asyncio.sleep(POLL_SECONDS)

    async def _publish(self) -> None:
        while True:
            self._sent += 1
            self._client.publish(subjects.dead("probe"), b"", f"probe-{self._sent}", self._done)
            await asyncio.sleep(PROBE_SECONDS)

    def _done(self, error: PublishError | None) -> None:
        self._settled += 1
        self.acknowledged += error is None


# --- what does not -----------------------------------------------------------------------------------------------


async def _lose_disk(outcome: Outcome, setting: Setting, data: Path) -> None:
    """The coordinator begins anew with nothing: what do the services hold that no saga knows of? Then those sagas are
    started again, under their ids, when nothing of their first lives is on its way any more."""
    async with _prepared(setting, data) as on:
        await _fill(on)
        load, now = on.load, asyncio.get_running_loop().time
        in_flight, struck_at = load.waiting(), now()
        await _remove_coordinator(on)
        load.admit(AFTERWARDS)
        while now() - max(struck_at, load.progress_at) < QUIET_SECONDS:
            on.raise_failure()
            await asyncio.sleep(POLL_SECONDS)
        _take_times(outcome, in_flight, load, struck_at)
        outcome.all_ended_seconds = None  # a client takes a CONFIRMED order for done
        orphans = _orphans(on.stores)
        held = [f"{count} {status}" for status, count in Counter(orphans.values()).items()]
        outcome.said = [f"held for ever: {' and '.join(held) or 'no'} orders"]
        outcome.said.append(f"{on.stores.counters().get('coordinator_dead_letters', 0)} dead letters")
        on.stores.let_go()  # the check opens them itself
        outcome.said += [f"check: {kind}, {count} times" for (_, kind), count in check_directory(data).kinds.items()]
        _start_again(on, orphans)
        again_at = now()
        while _orphans(on.stores) and now() - again_at < STALL_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
        outcome.said.append(f"their sagas started again: nothing held {now() - again_at:.1f} s later")
        await on.until_at_rest()
        await on.cluster.stop()
        findings = on.stores.audit(settled=True)
        outcome.lost, outcome.duplicate_effects = len(_orphans(on.stores)), findings.duplicate_effects
        outcome.violations = len([*findings.violations, *on.load.wrong_ends(patient=False)])


async def _remove_coordinator(on: Ground) -> None:
    """SIGKILL, and its directory is gone before it is started again."""
    process = Path("/proc") / str(on.cluster.pid(COORDINATOR))
    on.cluster.strike(COORDINATOR, 1.0)
    while process.exists():
        await asyncio.sleep(POLL_SECONDS)
    on.stores.let_go()
    shutil.rmtree(on.data / COORDINATOR)


def _orphans(stores: Stores) -> dict[str, str]:
    """The status of each order that is PENDING, or for which something is still reserved, held or prepared."""
    found = {}
    with stores.environment(SERVICES).read() as tx:
        for key, stored in tx.scan("order.orders"):
            order: Any = unpack(stored)
            rows: list[Any] = [unpack(row) for table in _LOCKS if (row := tx.get(table, key)) is not None]
            if order["status"] == PENDING or any(row["state"] in _LOCKS.values() for row in rows):
                found[key.decode()] = order["status"]
    return found


_LOCKS = {
    "inventory.reservations": inventory.RESERVED,
    "payment.payments": payment.HELD,
    "shipping.shipments": shipping.PREPARED,
}


def _start_again(on: Ground, orphans: Iterable[str]) -> None:
    """What OrderService has sent for each order when it was placed."""
    batcher = Batcher(on.client, asyncio.get_running_loop().call_soon, origin="operator")
    with on.stores.environment(SERVICES).read() as tx:
        for saga_id in orphans:
            order: Any = unpack(tx.get("order.orders", saga_id.encode()) or b"\xc0")
            if order is not None:
                start = StartSaga(saga_id, order["saga"], {key: order[key] for key in SAGA_INPUT}, "order")
                batcher.send(subjects.start(start.definition), to_envelope(start))


async def _restore(outcome: Outcome, setting: Setting, data: Path) -> None:
    """A backup of some seconds before is gone on with, by the command line, as an operator would."""
    out, result_path = data / "backup", data / "restored.json"
    async with _prepared(setting, data) as on:
        await _fill(on)
        begun = time.monotonic()
        await _sim("backup", str(data), str(out))
        ended = len(on.load.ended)
        outcome.said = [f"backup taken in {time.monotonic() - begun:.1f} s"]
        for _ in range(round(BACKUP_AGE_SECONDS * AGEING_WAVES_PER_SECOND)):
            _send_some(on.load, AGEING_WAVE, IN_FLIGHT)
            await asyncio.sleep(1 / AGEING_WAVES_PER_SECOND)
        await _fill(on)
        outcome.in_flight = on.load.under_way
        outcome.said.append(
            f"{len(on.load.ended) - ended} orders that had ended since it are forgotten, and done again"
        )
        await _remove_coordinator(on)
    begun = time.monotonic()
    await _sim("run", REFERENCE, "--data", str(out), "--plain", "--json", str(result_path))
    outcome.all_ended_seconds = round(time.monotonic() - begun, 2)
    result = json.loads(result_path.read_text())
    outcome.lost, outcome.duplicate_effects = result["lost"], result["duplicate_effects"]
    outcome.said += result["violations"]
    outcome.violations = len(result["violations"])


async def _sim(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(RUN_SIM), *words, stdout=asyncio.subprocess.DEVNULL, cwd=RUN_SIM.parent
    )
    await process.wait()
