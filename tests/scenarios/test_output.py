"""What is printed, and to whom: nothing about it hides how a run ended."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from scenarios import logs
from scenarios.commands.output import Output
from scenarios.plain import again
from scenarios.serving import Access
from tests.scenarios.conftest import ROOT, Sim

# The first order is rejected, and its fate says that it is fulfilled.
WRONG_STORY = """
from dataclasses import replace
from scenarios.scenario import Fate
from scenarios.shop.domain import malformed
from scenarios.stories.happy import scenario as happy

def load(random, number):
    return replace(malformed(random, number), fate=Fate.COMPLETED)

scenario = replace(happy, load=load)
"""


def shell(sim: Sim, *arguments: str, end: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output goes through a shell's `end`; its own exit status counts."""
    command = f"set -o pipefail; {' '.join(sim.command(*arguments))} {end}"
    return subprocess.run(
        ["bash", "-c", command], cwd=sim.home, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("name", "status"), [("happy", 0), ("wrong.py", 1)])
def test_a_reader_who_leaves_does_not_hide_the_verdict(sim: Sim, name: str, status: int) -> None:
    """`run | head -1`: the run goes on, its exit status is the verdict's, and `--json` is written."""
    (sim.home / "wrong.py").write_text(WRONG_STORY)
    done = shell(sim, "run", name, "--orders", "40", "--plain", "--json", "result.json", end="| head -n 1")
    assert done.returncode == status, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert sim.result()["verdict"] == ("failed" if status else "passed")


def test_a_reader_who_leaves_does_not_keep_nodes_from_being_started_again(sim: Sim) -> None:
    """The lines about kills have nobody to go to either, and the nodes are started again all the same."""
    done = shell(sim, "run", "everything", "--plain", "--seed", "7", "--json", "result.json", end="| head -n 1")
    assert done.returncode == 0, done.stderr
    assert len(sim.result()["faults_injected"]) == 5


@pytest.mark.parametrize("arguments", [("list",), ("run", "happy", "--orders", "5", "--plain", "--json", "r.json")])
def test_output_that_cannot_be_written_is_one_line_and_not_success(sim: Sim, arguments: tuple[str, ...]) -> None:
    """`> /dev/full`: one line on standard error, status 2, and the result is written nevertheless."""
    done = shell(sim, *arguments, end="> /dev/full")
    assert done.returncode == 2
    assert done.stderr == "sagasim: standard output cannot be written: No space left on device\n"
    if arguments[0] == "run":
        assert json.loads((sim.home / "r.json").read_text())["verdict"] == "passed"


def test_output_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first line that cannot be written nothing is tried again; a reader who has left is no problem."""
    tried: list[str] = []

    def broken(text: str, **_: object) -> None:
        tried.append(text)
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    output = Output()
    output.say("one")
    output.say("two")
    assert (tried, output.problem) == (["one"], "")


# --- the line that repeats a run ---------------------------------------------------------------------------------


def test_the_line_that_repeats_a_run_says_all_of_it() -> None:
    """Size, concurrency, seed, sequence, mode and the way to the broker, quoted for a shell."""
    access = Access("tls://shop:s3cret@db.example:4222", credentials=Path("/etc/my creds"))
    line = again("/home/me/my story.py", 20, 5, -3, sequential=True, access=access)
    assert line == (
        "run_sim.py run '/home/me/my story.py' --orders 20 --concurrency 5 --seed -3 --sequential"
        " --nats 'tls://***@db.example:4222' --creds '/etc/my creds'"
    )
    assert again("mixed", 1, 1, 1, sequential=False, mode="sim").endswith("--seed 1 --mode sim")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://t0ken@host", "'nats://***@host'"),
        ("user:p@ss@host:4222", "'***@host:4222'"),
        ("nats://a:b@one:1,nats://c:d@two:2", "'nats://***@one:1,nats://***@two:2'"),
        ("a:b@one,c:d@two", "'***@one,***@two'"),
    ],
)
def test_no_secret_of_the_broker_is_printed(url: str, shown: str) -> None:
    """Whatever stands before the host is left out, of every server."""
    assert again("mixed", 1, 1, 1, sequential=False, access=Access(url)).endswith(f"--nats {shown}")


@pytest.mark.parametrize("mode", ["real", "sim"])
def test_the_line_is_printed_by_both_modes(sim: Sim, mode: str) -> None:
    """And it is true: run as it stands, it gives the same run."""
    words = ("--orders", "6", "--concurrency", "3", "--seed", "9", "--sequential")
    first = sim("run", "happy", *words, *(("--plain", "--data", "one") if mode == "real" else ("--mode", "sim")))
    line = next(line for line in first.stdout.splitlines() if line.startswith("again: "))
    expected = f"again: run_sim.py run happy {' '.join(words)}" + (" --mode sim" if mode == "sim" else "")
    assert line == expected


# --- logs --------------------------------------------------------------------------------------------------------


@contextmanager
def logging_to(path: Path, form: str = "text") -> Iterator[logging.Logger]:
    """A logger that has been set up; afterwards all is as it was."""
    loggers = [logging.getLogger(name) for name in ("sagasim", "asyncio", "opentelemetry")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    logs.set_up(path, form=form)
    handler = loggers[0].handlers[-1]
    try:
        yield logging.getLogger("sagasim.test")
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        with suppress(OSError):
            handler.close()


def test_a_log_on_a_full_disk_loses_lines_and_prints_none(capsys: pytest.CaptureFixture[str]) -> None:
    """Logging's own way is a traceback on standard error for each line."""
    with logging_to(Path("/dev/full")) as logger:
        logger.error("there is no room for this")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", logs.FORMATS)
def test_the_latest_warning_of_a_log_can_be_read_again(tmp_path: Path, form: str) -> None:
    """In either format, behind lines that warn of nothing; "" of a log that does not warn, or is not there."""
    path = tmp_path / "node.log"
    found = [logs.latest_warning(path)]
    with logging_to(path, form) as logger:
        logger.info("all is well")
        found.append(logs.latest_warning(path))
        logger.warning("it smells")
        logger.error("it: burns")
        logger.info("it is out")
        found.append(logs.latest_warning(path))
    assert found == ["", "", "it: burns"]


# --- Ctrl-C while it is being loaded ----------------------------------------------------------------------------

INTERRUPTED = """
import os, runpy, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv = ["run_sim.py", "list"]
sys.path.insert(0, {root!r})
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.mark.parametrize("name", ["argparse", "lmdb", "scenarios.commands.listing", "asyncio"])
def test_an_interrupt_while_modules_are_loaded_is_quiet(name: str) -> None:
    """Ctrl-C in the first moments ends the process by that signal, without a traceback; so it does while what carries
    out the command is loaded."""
    code = INTERRUPTED.format(name=name, root=str(ROOT), path=str(ROOT / "run_sim.py"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
