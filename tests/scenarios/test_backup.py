"""`backup`: what is copied while everything runs can be gone on with when everything is lost."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import run_sim
from scenarios.scenario import COORDINATOR, SERVICES
from tests.scenarios.conftest import Sim, until_under_way
from tests.scenarios.played import NOW, Coordinator, Services

ORDERS = 3000


def test_gone_on_with_after_everything_is_lost(sim: Sim) -> None:
    """A backup taken under load, with clients that cancel, is sound; resumed, all orders end and the books add up."""
    arguments = ("run", "cancel", "--orders", str(ORDERS), "--concurrency", "10", "--seed", "1", "--data", "data")
    run = sim.start(*arguments, "--plain")
    until_under_way(sim.home / "data", run)
    done = sim("backup", "data", "copy")
    assert done.returncode == 0, done.stderr
    assert "both as they stood at one instant" in done.stdout
    assert run.poll() is None, "it was to be taken while the run was under way"
    live = sim("check", "data")
    assert live.returncode == 0, live.stdout + live.stderr
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    for directory in ("data", "copy"):
        found = sim("check", directory)
        assert found.returncode == 0, found.stdout + found.stderr
    unfinished = json.loads(sim("inspect", "copy", "--json").stdout)["counts"]["active"]
    assert unfinished > 0
    resumed = sim("run", "cancel", "--plain", "--data", "copy", "--json", "result.json")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    result = sim.result()
    assert (result["verdict"], result["lost"], result["duplicate_effects"]) == ("passed", 0, 0)
    assert result["completed"] + result["compensated"] == ORDERS
    assert sim("check", "copy").returncode == 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of a run whose nodes are gone."""
    (tmp_path / "data").mkdir()
    coordinator, services = Coordinator(tmp_path / "data"), Services(tmp_path / "data")
    coordinator.begin("0123456789ab-x", at=NOW)
    coordinator.environment.close()
    services.environment.close()
    data = tmp_path / "data"
    (data / COORDINATOR / "stats-1.json").write_text("{}")
    (data / "broker.url").write_text("nats://user:secret@127.0.0.1:1")
    (data / "broker").mkdir()
    (data / "broker" / "stream").write_text("messages")
    return data


def test_what_is_copied(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Databases, figures and whose run it is; not the broker's store, which is made anew, nor its credentials."""
    copy = tmp_path / "copies" / "first"
    assert run_sim.main(["backup", str(data), str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("coordinator: 1 unfinished sagas, 0 of them parked, 0 finished, 0.")
    assert lines[-1] == f"go on from it with: run_sim.py run mixed --data {copy}"
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert found == {
        "backup.json",
        "run.json",
        "coordinator/data.mdb",
        "coordinator/stats-1.json",
        "services/data.mdb",
    }
    assert json.loads((copy / "backup.json").read_text())["nodes"] == [COORDINATOR, SERVICES]
    assert [path.name for path in copy.parent.iterdir()] == ["first"]
    assert run_sim.main(["check", str(copy)]) == 0


def test_one_node_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a directory holds but one node's database, that is copied, and it is said how to come to both."""
    (data / SERVICES / "data.mdb").unlink()
    assert run_sim.main(["backup", str(data), str(tmp_path / "copy")]) == 0
    assert "stop the coordinator, back up both, and start it again" in capsys.readouterr().out
    assert not (tmp_path / "copy" / SERVICES).exists()


def occupied(_data: Path, out: Path) -> str:
    out.mkdir()
    (out / "precious").touch()
    return "exists already"


def a_file(_data: Path, out: Path) -> str:
    out.write_text("precious")
    return "exists already"


def nothing(data: Path, _out: Path) -> str:
    for role in (COORDINATOR, SERVICES):
        (data / role / "data.mdb").unlink()
    return "there is no node's database here"


def damaged(data: Path, _out: Path) -> str:
    (data / SERVICES / "data.mdb").write_bytes(b"\x5a" * 20_000)
    return "damaged"


@pytest.mark.parametrize("spoil", [occupied, a_file, nothing, damaged])
def test_refused(
    data: Path, tmp_path: Path, spoil: Callable[[Path, Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be backed up, or would overwrite anything: one clear line, status 2, and nothing is left behind."""
    out = tmp_path / "copy"
    says = spoil(data, out)
    before = sorted(tmp_path.iterdir())
    assert run_sim.main(["backup", str(data), str(out)]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_backup_is_not_made_within_what_it_is_of(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the way there is called: the next backup would find the last one in it."""
    before = sorted(data.iterdir())
    for out in (data / "copy", data / "deep" / "copy", data / ".." / data.name / "copy"):
        assert run_sim.main(["backup", str(data), str(out)]) == 2
        assert "lies within" in (err := capsys.readouterr().err)
        assert err.count("\n") == 1
    assert sorted(data.iterdir()) == before


def test_where_nothing_can_be_written(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A place that cannot be written in is named."""
    (tmp_path / "file").touch()
    assert run_sim.main(["backup", str(data), str(tmp_path / "file" / "copy")]) == 2
    err = capsys.readouterr().err
    assert "the backup cannot be written: Not a directory" in err
    assert err.count("\n") == 1
