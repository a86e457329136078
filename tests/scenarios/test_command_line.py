"""The command line as a user meets it: what it says when something is wrong, and to whom it listens."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import run_sim
from actors.limits import Limits
from actors.service import LedgerLimits
from scenarios import library, serving
from scenarios.places import COORDINATOR
from tests.scenarios.conftest import ROOT, Sim

BROKEN = "scenario = 1 +\n"
RAISING = "raise RuntimeError('boom')\n"
EMPTY = "x = 1\n"
WRONG_KILL = """
from scenarios.scenario import Kill
Kill("coordinator")
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "no-such-story"), "there is no scenario 'no-such-story'"),
        (("run", "missing.py"), "missing.py: there is no such file"),
        (("run", "broken.py"), "broken.py, line 1"),
        (("run", "raising.py"), "RuntimeError: boom"),
        (("run", "empty.py"), "must define `scenario = Scenario(...)`"),
        (("run", "wrong_kill.py"), "a kill needs one of"),
        (("run", "happy", "--orders", "0"), "must be 1 or more"),
        (("run", "happy", "--orders", "many"), "argument --orders: must be a whole number, not 'many'"),
        (("run", "happy", "--seed", "1.5"), "argument --seed: must be a whole number, not '1.5'"),
        (("run", "happy", "--seed", "9" * 19), "argument --seed: must have at most 18 digits"),
        (("run", "happy", "--seed", "9" * 5000), "argument --seed: must be a whole number"),
        (("run", "happy", "--json", "nowhere/result.json"), "there is no such directory"),
        (("run", "happy", "--json", "."), "--json .: this is a directory"),
        (("run", "happy", "--json", "/proc/1/result.json"), "--json /proc/1/result.json: it cannot be written"),
        (("run", "happy", "--data", "/proc/data"), "/proc/data: the run's directory cannot be made"),
        (("run", "happy", "--data", "a-file"), "a-file"),
        (("run", "happy", "--creds", "x"), "go with --nats"),
        (("run", "happy", "--nats", "nats://127.0.0.1:1"), "127.0.0.1:1"),
        (("run", "happy", "--nats", "http://127.0.0.1"), "must look like nats://"),
        (("run", "everything", "--nats", "nats://127.0.0.1:1"), "only an embedded one may be killed"),
        (("resume", "nowhere", "some-saga"), "there is no coordinator's database here"),
        (("cancel", "nowhere", "some-saga"), "there is no coordinator's database here"),
        (("resume", "nowhere", ""), "sagasim: "),
        (("cancel", "nowhere", ""), "sagasim: "),
        (("serve", "coordinator", "--data", "nowhere"), "give --nats URL"),
        (("dance",), "invalid choice: 'dance'"),
    ],
)
def test_bad_input_gets_one_clear_line(sim: Sim, arguments: tuple[str, ...], words: str) -> None:
    """What is wrong and where, on one line of standard error, and exit status 2."""
    for name, text in {"broken": BROKEN, "raising": RAISING, "empty": EMPTY, "wrong_kill": WRONG_KILL}.items():
        (sim.home / f"{name}.py").write_text(text)
    (sim.home / "a-file").write_text("in the way")
    done = sim(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_purge_without_a_broker_of_one_s_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be passed over in silence: an embedded broker holds nobody else's messages."""
    monkeypatch.chdir(tmp_path)
    for mode in ("real", "sim"):
        assert run_sim.main(["run", "happy", "--mode", mode, "--purge"]) == 2
        assert capsys.readouterr().err.startswith("sagasim: --purge goes with --nats")


@pytest.mark.parametrize("mode", ["real", "sim"])
@pytest.mark.parametrize(
    ("first", "second"), [("--json", "--trace"), ("--report", "--trace"), ("--json", "--report")]
)
def test_one_file_is_not_written_twice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mode: str,
    first: str,
    second: str,
) -> None:
    """Whatever it is called: the last one written would be all that is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    (tmp_path / "sub").mkdir()
    for other in ("out", "link", "sub/../out"):
        words = ["run", "happy", "--mode", mode, first, f"{tmp_path}/out", second, f"{tmp_path}/{other}"]
        assert run_sim.main(words) == 2
        assert f"{first} and {second} name the same file" in (err := capsys.readouterr().err)
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", ""),
        ("check", ""),
        ("backup", "", "X"),
        ("backup", "X", ""),
        ("cancel", "", "X"),
        ("run", "happy", "--data", ""),
    ],
)
def test_an_empty_path_is_not_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what a variable that is not set leaves, and is refused in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run_sim.main(arguments)
    assert stopped.value.code == 2
    assert "must name a file or a directory" in (err := capsys.readouterr().err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("seed", ["-5", "-999999999999999999", "999999999999999999"])
def test_any_seed_that_is_taken_works(sim: Sim, seed: str) -> None:
    """Negative ones and those of eighteen digits stand in saga ids like any other."""
    assert str(sim.passed("happy", "--orders", "3", "--seed", seed)["seed"]) == seed


def test_a_broker_s_endpoint_that_cannot_be_is_drawn_anew(sim: Sim) -> None:
    """A port or a password that was never drawn does not keep the embedded broker from starting."""
    sim.passed("happy", "--orders", "3", "--seed", "1")
    for port, password in ((99999, "x"), (-1, 'x" }\n'), ("x", None), (float("inf"), ""), (True, [])):
        (sim.home / "data" / "broker" / "endpoint.json").write_text(json.dumps({"port": port, "password": password}))
        sim.passed("happy")


def test_a_log_of_faults_that_is_no_text_is_passed_over(sim: Sim) -> None:
    """What cannot be read in it, such as a line cut short, is no kill; the run is resumed."""
    sim.passed("happy", "--orders", "3", "--seed", "1")
    (sim.home / "data" / "faults-fired.log").write_bytes(b"\xff\xfe\n[]\n{}\n5\n" + b'{"node": "services"}\n{"nod')
    assert sim.passed("happy")["faults_injected"] == []


def test_list_names_every_scenario_on_a_line(sim: Sim) -> None:
    """`list` prints a line a scenario, with its story."""
    done = sim("list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("everything ") for line in lines)
    assert [line.split()[0] for line in lines] == library.names()


def test_another_run_s_directory_is_left_alone(sim: Sim) -> None:
    """A directory that holds another run is refused, and says which run it holds."""
    sim.passed("happy", "--orders", "5", "--seed", "1")
    done = sim("run", "mixed", "--data", "data")
    assert done.returncode == 2
    assert "data holds another run: scenario happy, not mixed" in done.stderr
    done = sim("run", "happy", "--seed", "2", "--data", "data")
    assert "seed 1, not 2" in done.stderr


def test_the_broker_s_url_is_for_its_owner_only(sim: Sim) -> None:
    """`broker.url`, which holds the credentials, can be read by its owner alone; no log line holds them."""
    sim.passed("happy", "--orders", "5", "--seed", "1")
    path = sim.home / "data" / "broker.url"
    assert path.stat().st_mode & 0o777 == 0o600
    password = path.read_text().split(":")[2].split("@")[0]
    for log in (sim.home / "data" / "logs").iterdir():
        assert password not in log.read_text()


def test_the_log_of_one_saga_can_be_followed_by_its_id(sim: Sim) -> None:
    """With --log-format json each line is an object, and those about a saga carry its id, step and attempt."""
    sim.passed("card-declined", "--orders", "3", "--seed", "1", "--log-level", "DEBUG", "--log-format", "json")
    lines = [
        json.loads(line)
        for path in (sim.home / "data" / "logs").glob("*.log")
        for line in path.read_text().splitlines()
    ]
    saga_id = next(line["saga_id"] for line in lines if "saga_id" in line)
    about = [line for line in lines if line.get("saga_id") == saga_id]
    assert {"authorize", "reserve"} <= {line.get("step") for line in about}
    assert any(line.get("attempt") == 1 for line in about)
    assert any(line["level"] == "INFO" and "compensated" in line["message"] for line in about)


def test_a_reader_that_has_had_enough_is_no_error(sim: Sim, tmp_path: Path) -> None:
    """`list | head -1` ends without a traceback."""
    command = " ".join(sim.command("list")) + " | head -n 1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
    )
    assert done.stderr == ""


# --- what a command loads ---------------------------------------------------------------------------------------

LOADED = """
import sys, run_sim
status = run_sim.main(["serve", "coordinator", "--data", "nowhere"])
print(status, *(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_a_node_loads_only_what_it_needs() -> None:
    """A node is started again after every kill: it does not wait for what draws, measures and simulates."""
    needed = ["scenarios.serving", "scenarios.stories.everything"]
    others = ["rich", "pygal", "scenarios.simulation", "scenarios.bench", "scenarios.cockpit", "scenarios.report"]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *needed, *others], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", *needed]


def test_how_long_to_keep_what_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished sagas for so long; ledgers twice as long, and never so short that a step could be done again."""
    wanted: list[serving.Serving] = []

    async def served(asked: serving.Serving) -> int:
        wanted.append(asked)
        return 0

    monkeypatch.setattr(serving, "serve", served)
    words = ("serve", COORDINATOR, "--data", str(tmp_path), "--nats", "nats://nowhere")
    assert [run_sim.main([*words, *more]) for more in ((), ("--keep", "90s"), ("--keep", "2d"))] == [0, 0, 0]
    assert (wanted[0].limits, wanted[0].ledger_limits) == (Limits(), LedgerLimits())
    kept = [(one.limits.keep_finished_seconds, one.ledger_limits.keep_seconds) for one in wanted[1:]]
    assert kept == [(90.0, 86_400.0), (172_800.0, 345_600.0)]
    assert [one.limits.prune_interval_seconds for one in wanted[1:]] == [9.0, 60.0]
