"""`check`: a sound directory has no finding, and whatever cannot be has one, in one line with what to do."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import run_sim
from actors import outbox
from actors.ids import id_floor, new_id
from actors.messages import StartSaga
from actors.moves import Told
from actors.participant import Mark
from actors.record import change, from_snapshot, save, to_snapshot
from actors.state import Hold, Phase, initial
from broker.codec import pack, unpack
from persistence import journal, ledger, pruning, snapshots
from persistence.opening import META, SCHEMA_KEY
from persistence.transaction import Transaction
from scenarios.check_services import OVERDUE_SECONDS
from scenarios.checking import check_directory
from scenarios.findings import SHOWN_OF_A_KIND
from scenarios.scenario import COORDINATOR, SERVICES
from scenarios.shop.sagas import ORDER
from tests.scenarios.played import NOW, Coordinator, Services, always, refusing, write

COMPLETED, COMPENSATED, PARKED, RUNNING, LATER = (new_id(NOW + i, f"s{i}") for i in range(5))
NOBODY = new_id(NOW + 99, "nobody")
PAGE = os.sysconf("SC_PAGE_SIZE")
Spoil = Callable[[Transaction], object]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with sagas in every place, and the services' answers to them; no node is running."""
    coordinator, services = Coordinator(tmp_path), Services(tmp_path)
    for record in (
        coordinator.play(COMPLETED, always),
        coordinator.play(COMPENSATED, refusing("authorize")),
        coordinator.play(PARKED, refusing("capture")),
        coordinator.begin(RUNNING),
        coordinator.begin(LATER, at=NOW + 2 * OVERDUE_SECONDS),
    ):
        services.answered(record)
    coordinator.environment.close()
    services.environment.close()
    return tmp_path


def check(data: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    """The status of `check`, and the lines that it prints."""
    status = run_sim.main(["check", str(data), *words])
    return status, capsys.readouterr().out.splitlines()


def test_a_sound_directory(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is found, what was looked at is said, and the status is 0."""
    status, lines = check(data, capsys)
    assert status == 0
    assert lines == [
        f"{data}: 2 databases, 5 sagas, 27 transitions, 5 sagas replayed, 20 ledger entries, 4 books: sound"
    ]


def test_a_database_that_is_not_there_is_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node of its own has a directory of its own; but whoever has lost one must not read only that all is sound."""
    (data / COORDINATOR / "data.mdb").unlink()
    _, lines = check(data, capsys)
    assert "(there is no database of the coordinator here)" in lines


def test_the_whole_directory_stays_as_it_is(data: Path) -> None:
    """A check writes nothing but LMDB's own lock files."""
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "lock.mdb"}
    check_directory(data)
    assert {path: path.read_bytes() for path in before} == before


# --- what cannot be, one spoilt thing at a time ------------------------------------------------------------------


def respelt(saga_id: str, table: str, /, **changes: Any) -> Spoil:
    """Store a saga's snapshot with another record."""

    def spoil(tx: Transaction) -> None:
        snapshot = tx.get(table, saga_id.encode())
        assert snapshot is not None
        tx.put(table, saga_id.encode(), to_snapshot(replace(from_snapshot(snapshot), **changes)))

    return spoil


def moved(saga_id: str, source: str, target: str, *, keep: bool = False) -> Spoil:
    def spoil(tx: Transaction) -> None:
        snapshot = tx.get(source, saga_id.encode())
        assert snapshot is not None
        tx.put(target, saga_id.encode(), snapshot)
        if not keep:
            tx.delete(source, saga_id.encode())

    return spoil


def retold(change: Callable[[dict[int, bytes]], object]) -> Spoil:
    """The completed saga's journal, with its entries changed."""

    def spoil(tx: Transaction) -> None:
        entries = dict(journal.read(tx, COMPLETED))
        change(entries)
        journal.forget(tx, COMPLETED)
        for sequence, entry in entries.items():
            journal.append(tx, COMPLETED, sequence, [entry])

    return spoil


def exchanged(entries: dict[int, bytes]) -> None:
    entries[5], entries[6] = entries[6], entries[5]


def reworded(entries: dict[int, bytes]) -> None:
    at_seconds, detail, told_packed = cast(list[Any], unpack(entries[2]))
    told: Any = unpack(told_packed)
    told[Told._fields.index("phase")] = "draining"
    entries[2] = pack([at_seconds, detail, pack(told)])


COORDINATOR_FINDINGS: dict[str, tuple[Spoil, str]] = {
    "both": (moved(COMPLETED, snapshots.FINISHED, snapshots.ACTIVE, keep=True), f"{COMPLETED} is both active and"),
    "finished and running": (
        moved(RUNNING, snapshots.ACTIVE, snapshots.FINISHED),
        f"saga {RUNNING} is finished, and its state running",
    ),
    "active and completed": (
        moved(COMPLETED, snapshots.FINISHED, snapshots.ACTIVE),
        f"saga {COMPLETED} is active, and its state completed",
    ),
    "not a snapshot": (lambda tx: snapshots.save(tx, RUNNING, b"\xc1"), f"saga {RUNNING}: not a snapshot"),
    "another one's": (
        respelt(RUNNING, snapshots.ACTIVE, saga_id=LATER),
        f"saga {RUNNING} has the snapshot of {LATER}",
    ),
    "parked unseen": (lambda tx: snapshots.unpark(tx, PARKED), f"saga {PARKED} is parked and not listed as parked"),
    "parked and finished": (
        lambda tx: snapshots.park(tx, COMPLETED, b"\xc0"),
        f"saga {COMPLETED} is listed as parked, and is not active",
    ),
    "entry missing": (
        retold(lambda entries: entries.pop(4)),
        f"saga {COMPLETED} has made 9 transitions, and its journal holds 8",
    ),
    "entry unreadable": (
        retold(lambda entries: entries.update({4: b"\xc1"})),
        f"saga {COMPLETED}: not a journal entry",
    ),
    "entries exchanged": (retold(exchanged), "transition 5 (done do confirm) cannot follow what came before it"),
    "entry reworded": (retold(reworded), "transition 2 (done do open) says draining and comes to running"),
    "another state": (
        respelt(RUNNING, snapshots.ACTIVE, state=initial(ORDER)),
        f"saga {RUNNING}: its journal and its snapshot differ: open is doing in round 0, attempt 1, idle in round 0",
    ),
    "another phase": (
        respelt(RUNNING, snapshots.ACTIVE, state=initial(ORDER)._replace(phase=Phase.DRAINING)),
        "its journal and its snapshot differ: running, draining",
    ),
    "journal of nobody": (
        lambda tx: journal.append(tx, NOBODY, 1, [b"\xc0"]),
        f"the journal tells of a saga {NOBODY} that there is not",
    ),
}


@pytest.mark.parametrize("name", COORDINATOR_FINDINGS)
def test_the_coordinator_s_database(data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An impossible state or an orphan is a line with what to do, and the status is 1."""
    spoil, says = COORDINATOR_FINDINGS[name]
    write(data, COORDINATOR, spoil)
    status, lines = check(data, capsys)
    assert status == 1
    found = [line for line in lines if says in line]
    assert len(found) == 1, lines
    assert found[0].startswith("coordinator: ")
    assert "; " in found[0]
    assert "finding" in lines[-1]


def noted(service: str, saga_id: str, step: str, mark: Mark) -> Spoil:
    return lambda tx: ledger.put(tx, service, saga_id, step, pack([int(mark), 0, None, ""]))


def started(saga_id: str) -> Spoil:
    return lambda tx: outbox.write(tx, StartSaga(saga_id, "order", {}, "order"))


def pruned_to(saga_id: str) -> Spoil:
    """As if pruning had been up to a saga, and had left this one's entries."""
    return lambda tx: tx.put(META, b"horizon.payment", f"{saga_id}-".encode())


def stolen(tx: Transaction) -> None:
    shelf = {"initial": 5, "available": 1, "reserved": 0, "sold": 0}
    tx.put("inventory.stock", b"lamp", pack(shelf))


SERVICE_FINDINGS: dict[str, tuple[Spoil, str]] = {
    "coordinator ahead": (
        lambda tx: tx.delete(ledger.table("payment"), f"{COMPLETED}/capture".encode()),
        f"saga {COMPLETED}: its step capture is done, and the ledger of payment holds nothing",
    ),
    "services ahead": (
        noted("order", RUNNING, "confirm", Mark.DONE),
        f"saga {RUNNING}: its step confirm is idle, and the ledger of order holds done",
    ),
    "undone unasked": (
        noted("inventory", RUNNING, "reserve", Mark.UNDONE),
        f"saga {RUNNING}: its step reserve is doing, and the ledger of inventory holds undone",
    ),
    "saga unknown": (
        noted("payment", NOBODY, "authorize", Mark.DONE),
        f"payment has answered for step authorize of saga {NOBODY}, which its coordinator does not know",
    ),
    "request lost": (
        noted("order", NOBODY, "place", Mark.DONE),
        f"the request {NOBODY} was taken in, and neither a saga nor an outbox knows of it",
    ),
    "ledger unreadable": (
        lambda tx: ledger.put(tx, "order", COMPLETED, "open", b"\xc1"),
        f"ledger of order: {COMPLETED}/open: no entry",
    ),
    "outbox unreadable": (
        lambda tx: tx.put(outbox.table("order"), LATER.encode(), pack([1, "start"])),
        f"outbox of order: {LATER}: a 'start' message has 7 fields",
    ),
    "outbox of a finished saga": (started(COMPLETED), f"the start of saga {COMPLETED} is in an outbox"),
    "older than the horizon": (pruned_to(COMPENSATED), "ledger of payment: 2 entries are older than what it has"),
    "saga too old": (pruned_to(RUNNING), f"saga {RUNNING} is older than what payment remembers"),
    "books": (stolen, "lamp: the units do not add up"),
    "books unreadable": (
        lambda tx: tx.put("inventory.stock", b"lamp", b"\xc1"),
        "the domain's audit: CodecError",
    ),
}


@pytest.mark.parametrize("name", SERVICE_FINDINGS)
def test_the_services_database(data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """So is what the services cannot have, and what the two databases cannot have at one time."""
    spoil, says = SERVICE_FINDINGS[name]
    write(data, SERVICES, spoil)
    status, lines = check(data, capsys)
    assert status == 1
    found = [line for line in lines if says in line]
    assert len(found) == 1, lines
    assert found[0].startswith("services: ")
    assert "; " in found[0]


POSSIBLE_STATES: dict[str, tuple[str, Spoil]] = {
    "a start not yet answered": (SERVICES, started(NOBODY)),
    "a start whose answer is on its way": (SERVICES, started(RUNNING)),
    "a request with its start": (
        SERVICES,
        lambda tx: (noted("order", NOBODY, "place", Mark.DONE)(tx), started(NOBODY)(tx)),
    ),
    "a request refused": (SERVICES, noted("order", NOBODY, "place", Mark.REFUSED)),
    "an answer not yet heard": (SERVICES, noted("inventory", RUNNING, "reserve", Mark.DONE)),
    "a finished saga pruned": (
        COORDINATOR,
        lambda tx: pruning.prune_finished(tx, f"{COMPLETED}-", 10),
    ),
    "a ledger pruned": (SERVICES, lambda tx: pruning.prune_ledger(tx, "payment", f"{COMPENSATED}-", 10)),
    "parked untouched": (COORDINATOR, lambda tx: snapshots.park(tx, RUNNING, pack([NOW, "not known here"]))),
    "held": (COORDINATOR, lambda tx: hold(tx, RUNNING)),
}


def hold(tx: Transaction, saga_id: str) -> None:
    stored = snapshots.load(tx, saga_id)
    assert stored is not None
    done = change(from_snapshot(stored.snapshot), ORDER, Hold(), NOW, "its actor raised")
    assert done is not None
    save(tx, saga_id, done)


@pytest.mark.parametrize("name", POSSIBLE_STATES)
def test_what_a_crash_may_leave(data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What lies between two transitions, and what pruning has forgotten, is no finding."""
    role, work = POSSIBLE_STATES[name]
    write(data, role, work)
    status, lines = check(data, capsys)
    assert (status, len(lines)) == (0, 1), lines


# --- the rest ----------------------------------------------------------------------------------------------------


def test_many_of_a_kind(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many findings of a kind the first are shown and the others counted."""
    many = SHOWN_OF_A_KIND + 7
    for i in range(many):
        write(data, COORDINATOR, partial(snapshots.park, saga_id=new_id(NOW + i, f"x{i}"), note=b"\xc0"))
    status, lines = check(data, capsys)
    assert status == 1
    assert len([line for line in lines if "is listed as parked" in line]) == SHOWN_OF_A_KIND
    assert "coordinator: and 7 more: parked and not active" in lines
    assert lines[-1].endswith(f": {many} findings")


def test_as_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints one object."""
    write(data, COORDINATOR, lambda tx: snapshots.save(tx, NOBODY, b"\xc1"))
    status, lines = check(data, capsys, "--json")
    found = json.loads("\n".join(lines))
    assert (status, found["is_sound"], found["total"]) == (1, False, 1)
    assert [(one["node"], one["kind"]) for one in found["findings"]] == [("coordinator", "snapshot not understood")]
    assert found["looked_at"]["sagas"] == 6


def test_whose_sagas_these_are(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the scenario what it says cannot be checked, and that is said; `--scenario` names it."""
    (data / "run.json").unlink()
    status, lines = check(data, capsys)
    assert status == 0
    assert lines[0].startswith("(whose sagas these are is not known")
    assert "(5 sagas have definitions that are not known here: they were not replayed)" in lines
    status, lines = check(data, capsys, "--scenario", "mixed")
    assert (status, len(lines)) == (0, 1)


@pytest.mark.parametrize("role", [COORDINATOR, SERVICES])
def test_one_database_alone(data: Path, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory may hold but one node's database: that one is checked."""
    for path in (data / role).iterdir():
        path.unlink()
    status, lines = check(data, capsys)
    assert status == 0
    assert lines[-1].startswith(f"{data}: 1 databases")


def test_damaged_pages(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged pages are findings, and the contents of that database are left alone; the other one is checked."""
    path = data / SERVICES / "data.mdb"
    content = bytearray(path.read_bytes())
    content[2 * PAGE :] = b"\xff" * (len(content) - 2 * PAGE)
    path.write_bytes(bytes(content))
    status, lines = check(data, capsys)
    assert status == 1
    assert lines[0].startswith(f"services: {path}: ")
    assert lines[0].endswith("restore the directory from a backup")
    assert "5 sagas replayed" in lines[-1]


def newer(data: Path) -> None:
    write(data, COORDINATOR, lambda tx: tx.put(META, SCHEMA_KEY, b"99"))


def garbage(data: Path) -> None:
    (data / SERVICES / "data.mdb").write_bytes(b"\x5a" * 20_000)


def missing(data: Path) -> None:
    for role in (COORDINATOR, SERVICES):
        (data / role / "data.mdb").unlink()


@pytest.mark.parametrize(
    ("spoil", "says"), [(newer, "schema 99"), (garbage, "damaged"), (missing, "there is no node's database here")]
)
def test_what_cannot_be_read(
    data: Path, spoil: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database that is missing, newer or none at all ends in one clear line and status 2."""
    spoil(data)
    assert run_sim.main(["check", str(data)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_old_ids_are_told_by_their_horizon() -> None:
    """An id sorts below the horizon of what was pruned after it, and above that of what was pruned before it."""
    assert id_floor(NOW) < COMPLETED < f"{COMPLETED}-" < COMPENSATED
