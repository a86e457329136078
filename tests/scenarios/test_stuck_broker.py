"""A broker that is up and no longer stores: what a full disk leaves of a nats-server. The run starts it again."""

import asyncio
import json
import os
import resource
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from broker import codec
from broker.jetstream import JetStream
from broker.port import Broker, Done, PublishError
from scenarios import library, runner
from scenarios.cluster import Cluster
from scenarios.load import Load
from scenarios.probing import unstored
from scenarios.shop.domain import SHOP
from tests.scenarios.conftest import Sim


class Picky:
    """A broker that stores what it is sent, but for some subjects."""

    def __init__(self, *stuck: str) -> None:
        self.stuck = stuck
        self.published: dict[str, bytes] = {}

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.published[subject] = payload
        done(PublishError("not acknowledged") if subject in self.stuck else None)


def test_every_stream_that_a_run_needs_is_asked_with_a_message_of_nothing() -> None:
    """A subject each, read by somebody who passes over no envelopes; those that were not stored are named."""
    broker = Picky("saga.start.order", "saga.event.order")
    assert asyncio.run(unstored(cast(Broker, broker), SHOP)) == ["saga.start.order", "saga.event.order"]
    assert [subject.rpartition(".")[0] for subject in broker.published] == [
        "saga.start",
        "saga.command",
        "saga.reply",
        "saga.control",
        "saga.event",
    ]
    assert all(codec.decode(payload) == [] for payload in broker.published.values())
    assert asyncio.run(unstored(cast(Broker, Picky()), SHOP)) == []


def test_a_run_whose_directory_is_gone_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever minds its silence says so in one line, and does not just end."""
    monkeypatch.setattr(runner, "SILENCE_SECONDS", 0.0)
    run = runner.Run(library.find("happy"), runner.RunOptions("happy", tmp_path / "gone", 1, 10, 5), lambda _: None)
    cluster = Cluster(tmp_path, [], [], None, lambda _: None)
    load = SimpleNamespace(under_way=1, heard_at=-1.0)
    asyncio.run(run._mind_silence(cast(Load, load), cluster, cast(JetStream, Picky())))
    assert str(cluster.failure).startswith("the run's directory is gone or cannot be read: ")


# Each order may end either way: its attempts may run out while nothing is stored.
STORY = """
from dataclasses import replace
from scenarios.scenario import Fate
from scenarios.shop.domain import good
from scenarios.stories.happy import scenario as happy

def load(random, number):
    return replace(good(random, number), fate=Fate.EITHER)

scenario = replace(happy, load=load, expectations=())
"""


def limit_files(pid: int, size: int) -> None:
    """Let a process write no file beyond a size: the server's streams take it as they take a full disk."""
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


def _wait_for(logs: Path, words: str, run: subprocess.Popen[str]) -> None:
    """Until any process of the run says it."""
    while not any(words in path.read_text() for path in logs.glob("*.log")):
        assert run.poll() is None, run.communicate()[0]


@pytest.mark.skipif(not os.environ.get("SAGASIM_SOAK"), reason="takes half a minute: make test-long")
def test_a_broker_that_no_longer_stores_is_started_again(sim: Sim) -> None:
    """It answers pings and stores nothing, though its disk has room: one line, a new start, and the run passes."""
    (sim.home / "story.py").write_text(STORY)
    arguments = ("story.py", "--orders", "4000", "--concurrency", "50", "--seed", "1", "--plain", "--data", "data")
    run = sim.start("run", *arguments, "--json", "result.json")
    assert run.stdout is not None
    for line in run.stdout:
        if "orders ended" in line:
            break
    data = sim.home / "data"
    pid = int((data / "broker" / "nats-server.pid").read_text())
    limit_files(pid, 0)
    _wait_for(data / "logs", "not acknowledged within", run)
    limit_files(pid, resource.RLIM_INFINITY)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    told = [line for line in output.splitlines() if line.startswith("broker ")]
    assert len(told) == 1, output
    assert told[0].startswith("broker answers, but no longer stores what is sent to saga.")
    result = json.loads((sim.home / "result.json").read_text())
    assert result["completed"] + result["compensated"] == 4000
    logs = [path.read_text(errors="replace") for path in (data / "logs").iterdir()]
    assert not any("Traceback" in text for text in logs)
