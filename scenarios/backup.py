"""`backup`: a run's directory copied while its nodes are at work, so that the copy can be gone on with.

Which database is copied first? With two copies from different times either order breaks a rule. A coordinator that is
ahead believes steps done that its services have forgotten. Services that are ahead have executed what their
coordinator has not decided yet, and may decide otherwise: a step is undone, and the saga goes forward over it; or an
order's start was answered and left its outbox, and no saga knows of it. Hence both are copied as they stood at one
instant: that is what a loss of power leaves behind, and what the rules are made for. The messages on their way are
lost with the broker's store, which is not copied: whoever waits for an answer asks again.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from persistence import snapshots
from persistence.backup import copy_database, one_instant, sync_directory
from persistence.environment import Environment
from persistence.transaction import Transaction
from scenarios.chaos.crash_point import FIRED_FILE
from scenarios.held_directory import RUN_FILE
from scenarios.run_directory import has_database
from scenarios.scenario import COORDINATOR, SERVICES, ScenarioError

ROLES = (COORDINATOR, SERVICES)
FILES = (RUN_FILE, FIRED_FILE)  # what a run needs beside its databases to be gone on with
NOTE_FILE = "backup.json"  # says what this is a backup of


def backup(data: Path, out: Path) -> list[str]:
    """Copy the databases in `data` to the new directory `out`; what to tell. Raises ScenarioError or StorageError.

    `out` appears whole and durable, or not at all.
    """
    roles = [role for role in ROLES if has_database(data, role)]
    if not roles:
        raise ScenarioError(f"{data}: there is no node's database here")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ScenarioError(f"{out} exists already: a backup is made in a new directory")
    if out.resolve().is_relative_to(data.resolve()):
        raise ScenarioError(f"{out} lies within {data}: a backup is made outside of what it is of")
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(mode=0o700, parents=True)
        lines = _copy_databases(data, partial, roles)
        _copy_files(data, partial, roles)
        partial.rename(out)
        sync_directory(out.parent)
    except OSError as error:
        raise ScenarioError(f"{out}: the backup cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [*lines, *_advice(data, out, roles)]


def _copy_databases(data: Path, out: Path, roles: list[str]) -> list[str]:
    with ExitStack() as stack:
        environments = [Environment.open_read_only(data / role) for role in roles]
        for environment in environments:
            stack.callback(environment.close)
        reads = stack.enter_context(one_instant(environments))
        at = time.strftime("%Y-%m-%d %H:%M:%S %z")
        lines = []
        for role, environment, tx in zip(roles, environments, reads, strict=True):
            size = copy_database(environment, tx, out / role)
            lines.append(f"{role}: {', '.join([*_counts(role, tx), f'{size / 1e6:.1f} MB'])}, checked page by page")
    (out / NOTE_FILE).write_text(json.dumps({"backup_of": str(data.resolve()), "at": at, "nodes": roles}) + "\n")
    instant = f"both as they stood at one instant, {at}" if len(roles) > 1 else f"as it stood at {at}"
    return [*lines, instant]


def _counts(role: str, tx: Transaction) -> Iterator[str]:
    if role == COORDINATOR:
        counts = snapshots.counts(tx)
        yield f"{counts.active:,} unfinished sagas, {counts.parked:,} of them parked, {counts.finished:,} finished"


def _copy_files(data: Path, out: Path, roles: list[str]) -> None:
    """The small files: whose run it is, which kills are done, the counters. Not the broker's URL: it is a secret."""
    paths = [data / name for name in FILES]
    paths += [path for role in roles for path in (data / role).glob("stats-*.json")]
    for path in paths:
        if path.is_file():
            shutil.copy(path, out / path.relative_to(data))
    for directory in (*(out / role for role in roles), out):
        for path in directory.iterdir():
            _make_durable(path)
        sync_directory(directory)


def _make_durable(path: Path) -> None:
    if path.is_file():
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _advice(data: Path, out: Path, roles: list[str]) -> list[str]:
    if len(roles) == 1:
        missing = next(role for role in ROLES if role not in roles)
        return [
            f"there is no database of the {missing} in {data}: two nodes in different directories share no instant;"
            f" stop the coordinator, back up both, and start it again"
        ]
    try:
        scenario = json.loads((out / RUN_FILE).read_text())["reference"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"go on from it with: run_sim.py serve coordinator|services --data {out} --nats URL ..."]
    return [f"go on from it with: run_sim.py run {scenario} --data {out}"]
