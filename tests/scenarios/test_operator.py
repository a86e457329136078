"""What an operator does: find what is parked, mend the cause, resume; cancel; serve nodes beside a broker."""

import json
import re
from pathlib import Path

import pytest

from persistence import snapshots
from persistence.environment import Environment
from tests.scenarios.conftest import Sim
from tests.scenarios.outside import Outside

STUCK_STORY = '''"""Payment refuses every capture until someone has mended it: the file `mended` says so."""

from dataclasses import replace
from pathlib import Path

from actors.handlers import Refused, action
from scenarios.scenario import Scenario
from scenarios.shop.domain import SHOP, good, shop_services
from scenarios.shop.payment import PaymentService


class StuckPayment(PaymentService):
    @action
    def capture(self, transaction, command):
        if not Path(__file__).with_name("mended").exists():
            raise Refused("the bank is closed")
        return super().capture(transaction, command)


def services(conducts):
    return [StuckPayment() if service.name == "payment" else service for service in shop_services(conducts)]


scenario = Scenario("stuck", story=__doc__, domain=replace(SHOP, services=services), load=good, orders=3)
'''


@pytest.fixture
def stuck(sim: Sim) -> Sim:
    """A run whose three sagas are all parked past their pivot."""
    (sim.home / "stuck.py").write_text(STUCK_STORY)
    done = sim("run", "stuck.py", "--seed", "1", "--plain", "--data", "data", "--json", "result.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert sim.result()["parked"] == 3
    return sim


def _parked(data: Path) -> list[str]:
    environment = Environment.open_read_only(data / "coordinator")
    with environment.read() as tx:
        found = [saga_id for saga_id, _ in snapshots.scan_parked(tx)]
    environment.close()
    return found


def test_a_parked_saga_is_shown_with_its_reason(stuck: Sim) -> None:
    """`inspect` names every parked saga and what it waits for."""
    done = stuck("inspect", "data")
    assert done.returncode == 0, done.stderr
    for saga_id in _parked(stuck.home / "data"):
        assert saga_id in done.stdout
        one = stuck("inspect", "data", saga_id)
        assert one.returncode == 0, one.stderr
        assert "the bank is closed" in one.stdout


def test_resumed_without_a_coordinator_the_sagas_end_with_the_next_run(stuck: Sim) -> None:
    """With no coordinator running, `resume` saves it itself, and the next start goes on from there."""
    (stuck.home / "mended").touch()
    for saga_id in _parked(stuck.home / "data"):
        done = stuck("resume", "data", saga_id)
        assert done.returncode == 0, done.stderr
        assert "resume is saved" in done.stdout
    assert _parked(stuck.home / "data") == []
    result = stuck.passed("stuck.py")
    assert (result["completed"], result["parked"]) == (3, 0)


def test_a_confirmed_order_cannot_be_cancelled(stuck: Sim) -> None:
    """Past the pivot a cancel changes nothing and says so."""
    saga_id = _parked(stuck.home / "data")[0]
    done = stuck("cancel", "data", saga_id)
    assert done.returncode == 1
    assert done.stdout == (
        f"{saga_id}: too late to cancel; its pivot confirm is done, and it only goes forward; "
        "it is parked: capture refused: the bank is closed\n"
    )


def test_an_unknown_saga_is_one_line(stuck: Sim) -> None:
    """Who asks for a saga that there is not hears so in one line."""
    done = stuck("resume", "data", "0123456789ab-nobody")
    assert (done.returncode, done.stderr) == (2, "sagasim: there is no saga 0123456789ab-nobody\n")


def test_served_nodes_are_steered_from_the_command_line(sim: Sim, outside: Outside) -> None:
    """Nodes started with `serve` go on where a run left off, and `resume` asks the running coordinator."""
    (sim.home / "stuck.py").write_text(STUCK_STORY)
    where = ("--data", "data", "--scenario", "stuck.py", *outside.arguments)
    run = sim("run", "stuck.py", "--seed", "1", "--plain", "--data", "data", *outside.arguments)
    assert run.returncode == 1, run.stdout + run.stderr
    (sim.home / "mended").touch()
    nodes = [sim.start("serve", role, *where) for role in ("coordinator", "services")]
    try:
        assert nodes[0].stdout is not None
        for line in nodes[0].stdout:
            if "unfinished sagas are back" in line:
                break
        for saga_id in _parked(sim.home / "data"):
            late = sim("cancel", "data", saga_id)
            assert late.returncode == 1, late.stderr
            assert "too late to cancel; its pivot confirm is done" in late.stdout
            done = sim("resume", "data", saga_id)
            assert done.returncode == 0, done.stderr
            assert re.search(r"asked its coordinator to resume it; it is (running|completed)", done.stdout)
    finally:
        for node in nodes:
            node.terminate()
        outputs = [node.communicate(timeout=30)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    result = sim.passed("stuck.py", *outside.arguments)
    assert result["completed"] == 3


def test_a_directory_in_use_is_refused_in_one_line(sim: Sim, outside: Outside) -> None:
    """A second coordinator on the same directory does not start, and says who holds it."""
    where = ("serve", "coordinator", "--data", "data", *outside.arguments)
    first = sim.start(*where)
    try:
        assert first.stdout is not None
        for line in first.stdout:
            if "unfinished sagas are back" in line:
                break
        second = sim(*where)
        assert second.returncode == 2
        assert str(first.pid) in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        first.terminate()
        first.communicate(timeout=30)


@pytest.mark.parametrize("damage", ["corrupt", "newer"])
def test_a_database_that_cannot_be_used_is_one_line(sim: Sim, damage: str) -> None:
    """A damaged database, or one of a newer schema, is named in one line, and nothing in it is touched."""
    sim.passed("happy", "--orders", "3", "--seed", "1")
    path = sim.home / "data" / "coordinator" / "data.mdb"
    if damage == "corrupt":
        path.write_bytes(b"\xff" * path.stat().st_size)
    else:
        environment = Environment.open(path.parent, ())
        environment.update(lambda tx: tx.put("meta", b"schema_version", b"99"))
        environment.close()
    before = path.read_bytes()
    for command in (("inspect", "data"), ("run", "happy", "--plain", "--data", "data")):
        done = sim(*command)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "data.mdb" in done.stderr or "coordinator" in done.stderr
    assert path.read_bytes() == before


def test_inspect_writes_json(sim: Sim) -> None:
    """`inspect --json` writes one object, for the whole directory as for one saga."""
    sim.passed("happy", "--orders", "3", "--seed", "1")
    whole = json.loads(sim("inspect", "data", "--json").stdout)
    assert isinstance(whole, dict)
