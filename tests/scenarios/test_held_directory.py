"""The run's directory: one run at a time, resumed as what it is, and not left behind by what has not begun."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.handlers import ServiceHandlers
from persistence.errors import LockedError
from scenarios.held_directory import RUN_FILE, About, HeldDirectory
from scenarios.runner import Run, RunOptions
from scenarios.scenario import Conduct, ScenarioError
from scenarios.stories import happy
from tests.scenarios.conftest import Sim, until_under_way

WANTED = About("happy", "happy", seed=1, orders=20, sequential=False, epoch_seconds=1_700_000_000.5)
GOOD: dict[str, Any] = {
    "scenario": "happy",
    "reference": "happy",
    "seed": 1,
    "orders": 20,
    "sequential": False,
    "epoch_seconds": 1_700_000_000.5,
}


def test_a_directory_is_held_by_one_run(tmp_path: Path) -> None:
    """Who comes second is refused; who comes afterwards takes it up."""
    with HeldDirectory.take(tmp_path / "data", WANTED) as first:
        assert not first.resumed
        first.begun = True
        with pytest.raises(LockedError):
            HeldDirectory.take(tmp_path / "data", WANTED)
    with HeldDirectory.take(tmp_path / "data", WANTED) as again:
        assert (again.resumed, again.about) == (True, WANTED)


def test_another_run_s_directory_is_refused_and_given_back(tmp_path: Path) -> None:
    """What the run that it holds must have in common is compared; then the directory is free again."""
    with HeldDirectory.take(tmp_path, WANTED) as held:
        held.begun = True
    other = About("happy", "happy", seed=2, orders=30, sequential=False)
    with pytest.raises(ScenarioError, match="holds another run: seed 1, not 2, orders 20, not 30"):
        HeldDirectory.take(tmp_path, other, ["seed", "orders"])
    with HeldDirectory.take(tmp_path, other, []) as held:
        assert held.about == WANTED


def _fail(path: Path, *, begun: bool) -> None:
    """A run that makes something in its directory and fails."""
    with suppress(ScenarioError), HeldDirectory.take(path, WANTED) as held:
        (path / "logs").mkdir(exist_ok=True)
        held.begun = begun
        raise ScenarioError("no broker")


def test_what_has_not_begun_leaves_nothing(tmp_path: Path) -> None:
    """The directories that were made for it go with it, those that were there stay; so does what had begun."""
    _fail(tmp_path / "home" / "data", begun=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").touch()
    _fail(tmp_path / "there", begun=False)
    assert (tmp_path / "there" / "mine.txt").exists()
    assert not (tmp_path / "there" / RUN_FILE).exists()
    _fail(tmp_path / "begun", begun=True)
    _fail(tmp_path / "begun", begun=False)
    assert (tmp_path / "begun" / RUN_FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "null",
        "{}",
        json.dumps(GOOD | {"orders": "20"}),
        json.dumps(GOOD | {"orders": 0}),
        json.dumps(GOOD | {"orders": True}),
        json.dumps(GOOD | {"seed": 1.5}),
        json.dumps(GOOD | {"scenario": None}),
        json.dumps(GOOD | {"sequential": "no"}),
        json.dumps(GOOD | {"epoch_seconds": float("nan")}),
        json.dumps(GOOD | {"epoch_seconds": float("inf")}),
        json.dumps(GOOD | {"epoch_seconds": 1e300}),
        json.dumps(GOOD | {"epoch_seconds": -1}),
        '{"scenario": "happy", "seed": ' + "[" * 100_000,
    ],
)
def test_an_odd_run_file_is_one_line(tmp_path: Path, text: str) -> None:
    """Whatever stands in it, it is refused with its path, and not guessed at."""
    (tmp_path / RUN_FILE).write_text(text)
    with pytest.raises(ScenarioError, match=RUN_FILE) as raised:
        HeldDirectory.take(tmp_path, WANTED)
    assert "\n" not in str(raised.value)


def test_a_run_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    """Neither bytes that are no UTF-8 nor a directory in its place are a traceback."""
    (tmp_path / RUN_FILE).write_bytes(b"\xff\xfe{}")
    with pytest.raises(ScenarioError, match="cannot be read: UnicodeDecodeError"):
        HeldDirectory.take(tmp_path, WANTED)
    (tmp_path / RUN_FILE).unlink()
    (tmp_path / RUN_FILE).mkdir()
    with pytest.raises(ScenarioError, match="cannot be read: IsADirectoryError"):
        HeldDirectory.take(tmp_path, WANTED)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file in the way, or a place where nothing can be made."""
    (tmp_path / "file").touch()
    with pytest.raises(ScenarioError, match="cannot be made"):
        HeldDirectory.take(tmp_path / "file" / "data", WANTED)
    with pytest.raises(ScenarioError, match="cannot be made"):
        HeldDirectory.take(Path("/proc/data"), WANTED)


def test_a_second_run_on_a_directory_in_use_leaves_the_first_alone(sim: Sim) -> None:
    """One clear line with status 2 that names the first run's process; the first run passes, its broker untouched."""
    arguments = ("run", "happy", "--orders", "2000", "--concurrency", "10", "--plain", "--data", "data")
    first = sim.start(*arguments, "--json", "result.json")
    until_under_way(sim.home / "data", first)
    second = sim(*arguments)
    assert second.returncode == 2, second.stdout + second.stderr
    assert second.stderr.startswith("sagasim: ")
    assert f"process {first.pid} is running on this directory" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert second.stdout == ""
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert "started again" not in output
    assert sim.result()["verdict"] == "passed"


def test_what_a_run_leaves_is_for_its_owner_only(sim: Sim) -> None:
    """Files are 0600 and directories 0700, whoever made them; the result that was asked for is as others are."""
    sim.passed("happy", "--orders", "5", "--seed", "1")
    modes = {path: path.lstat().st_mode & 0o777 for path in [sim.home / "data", *(sim.home / "data").rglob("*")]}
    assert {path for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == set()
    assert (sim.home / "result.json").stat().st_mode & 0o400


def test_a_run_that_finds_no_broker_leaves_no_directory(sim: Sim) -> None:
    """`--nats` to where nothing listens: one line, and neither the run's directory nor the one it would lie in."""
    done = sim("run", "happy", "--plain", "--nats", "nats://127.0.0.1:1")
    assert done.returncode == 2
    assert list(sim.home.iterdir()) == []


def test_a_run_whose_faults_cannot_be_drawn_leaves_no_directory(tmp_path: Path) -> None:
    """To draw them its author's services are made: what they raise is one line, and the directory is free again."""

    def services(_: Mapping[str, Conduct]) -> list[ServiceHandlers]:
        raise ValueError("not today")

    scenario = replace(happy.scenario, domain=replace(happy.scenario.domain, services=services))
    options = RunOptions("happy", tmp_path / "data", 1, 10, 5, chaos=True)
    with pytest.raises(ScenarioError, match="not today"):
        Run(scenario, options, lambda _: None).prepare()
    assert list(tmp_path.iterdir()) == []
