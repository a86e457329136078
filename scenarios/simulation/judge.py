"""What a life has left behind, read from its stores: is every saga's history legal, and did it end as it says?"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.definition import Saga
from actors.record import from_entry, from_snapshot
from actors.state import is_parked, waiting_for
from broker.codec import unpack
from persistence import journal, snapshots
from persistence.errors import FencedError
from persistence.transaction import Transaction
from scenarios.chaos.trouble import EFFECTS
from scenarios.simulation.history import check_effects, check_history
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.tap import Watcher
from scenarios.simulation.world import SimulatedWorld
from scenarios.view import park_reason

Effects = dict[tuple[str, str], tuple[int, int]]
"""What took effect of one saga: (step, do or undo) -> how often, and its place among all effects of the world."""

_MANY = 1_000_000


@dataclass(slots=True)
class Judgement:
    """What is wrong, what remarkable things were seen, and which definitions' sagas there were."""

    violations: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    definitions: set[str] = field(default_factory=set)


def parked_sagas(node: SimulatedNode) -> dict[str, str]:
    """Why each parked saga of a coordinator is; nobody knows of any while it is down."""
    if not node.up:
        return {}
    with node.environment.read() as tx:
        return {saga_id: park_reason(note)[1] for saga_id, note in snapshots.scan_parked(tx, limit=_MANY)}


def judge_sagas(world: SimulatedWorld, watcher: Watcher) -> Judgement:
    """Every saga by its snapshot, its journal, its effects, and what was told of it while it lived.

    Journal entries count in the trace. Raises StorageError or SnapshotError if a store cannot be read.
    """
    judgement = Judgement()
    effects = _effects(world)
    with world.coordinator.environment.read() as tx:
        parked = dict(snapshots.scan_parked(tx, limit=_MANY))
        active = dict(snapshots.scan_active(tx, limit=_MANY))
        finished = dict(snapshots.scan_finished(tx, limit=_MANY))
        judgement.violations += _told_wrong(parked, active, finished, watcher)
        for saga_id, snapshot in [*active.items(), *finished.items()]:
            _judge_saga(judgement, watcher, tx, saga_id, snapshot, effects.get(saga_id, {}), parked=saga_id in parked)
    return judgement


def _told_wrong(
    parked: dict[str, bytes], active: dict[str, bytes], finished: dict[str, bytes], watcher: Watcher
) -> Iterator[str]:
    for saga_id, note in parked.items():
        if not park_reason(note)[1].strip():
            yield f"saga {saga_id} is parked without a reason"
    for saga_id in sorted(active.keys() & finished.keys()):
        yield f"saga {saga_id} is both active and finished"
    for saga_id, snapshot in watcher.finished.items():
        if finished.get(saga_id) != snapshot:
            yield f"saga {saga_id} has changed after its end"


def _judge_saga(
    judgement: Judgement,
    watcher: Watcher,
    tx: Transaction,
    saga_id: str,
    snapshot: bytes,
    effects: Effects,
    *,
    parked: bool,
) -> None:
    record = from_snapshot(snapshot)
    entries = journal.read(tx, saga_id)
    for _, entry in entries:
        watcher.trace.journal(saga_id, entry)
    saga = watcher.sagas.get(record.definition)
    if saga is None:
        return
    history = check_history(saga_id, saga, [(n, from_entry(entry)) for n, entry in entries])
    judgement.definitions.add(saga.name)
    judgement.violations += [*history.problems, *check_effects(history, effects)]
    judgement.seen.update(history.seen)
    if history.end == "completed" and saga_id in watcher.cancelled:
        judgement.seen["cancel too late"] += 1
    if is_parked(record.state) and not parked:
        judgement.violations.append(f"saga {saga_id} is parked, and not among the parked")
    if record.sequence != len(entries):
        counts = f"{record.sequence} transitions by its snapshot, {len(entries)} by its journal"
        judgement.violations.append(f"saga {saga_id}: {counts}")


def _effects(world: SimulatedWorld) -> dict[str, Effects]:
    """What took effect, by saga."""
    found: dict[str, Effects] = {}
    for node in world.services:
        with node.environment.read() as tx:
            for table in node.plan.tables:
                if table.endswith(f".{EFFECTS}"):
                    for key, stored in tx.scan(table):
                        saga_id, step, verb = key.decode().split("/")
                        times, first = _pair(unpack(stored))
                        found.setdefault(saga_id, {})[step, verb] = times, first
    return found


def _pair(stored: Any) -> tuple[int, int]:
    times, first = stored
    return int(times), int(first)


def judge_nodes(world: SimulatedWorld) -> Judgement:
    """Nodes that failed by themselves, unless they had been overtaken; and what their receivers have raised."""
    judgement = Judgement()
    for node in [*world.zombies, *world.nodes]:
        if isinstance(node.failure, FencedError):
            judgement.seen["zombie fenced"] += 1
        elif node.failure is not None:
            judgement.violations.append(f"{node.name} failed: {node.failure}")
        errors = list(node.receiver_errors) + (node.client.receiver_errors if node.client and node.up else [])
        judgement.violations += [f"{node.name} raised {type(error).__name__}: {error}" for error in errors]
    return judgement


def waiting_in_words(world: SimulatedWorld, sagas: Mapping[str, Saga], most: int = 5) -> str:
    """The unfinished sagas, and which commands each waits for; "" if there are none."""
    node = world.coordinator
    if not node.up:
        return ""
    with node.environment.read() as tx:
        active = snapshots.scan_active(tx, limit=most)
    return "; ".join(f"{saga_id} waits for {_commands(snapshot, sagas)}" for saga_id, snapshot in active)


def _commands(snapshot: bytes, sagas: Mapping[str, Saga]) -> str:
    record = from_snapshot(snapshot)
    saga = sagas[record.definition]
    words = [
        f"{send.verb.name.lower()} {saga.steps[send.step].name}, attempt {send.attempt}"
        for send in waiting_for(record.state)
    ]
    return " and ".join(words) or "nobody"
