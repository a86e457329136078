"""What keys do to a run: to its processes, its load, its sagas; and that it is told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from actors.messages import Control, from_envelope
from actors.state import Cancel, Resume
from broker import codec
from broker.port import Broker
from scenarios import library, operate
from scenarios.cluster import Cluster
from scenarios.cockpit.helm import PAUSE_SECONDS, Helm
from scenarios.cockpit.keys import ACTS
from scenarios.scenario import BROKER
from scenarios.shop.sagas import SAGAS
from scenarios.watching import Stores
from tests.scenarios.played import COMPLETED, NOW, PARKED, RUNNING, Coordinator, always, refusing
from tests.scenarios.views import load_of, mid_run


class Processes:
    """A cluster that only notes what is done to it, and is quiet about it; its broker is not its own."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def strike(self, node: str, *, quietly: bool) -> bool:
        return quietly and self._do(node, f"strike {node}")

    def pause(self, node: str, seconds: float, *, quietly: bool) -> bool:
        return quietly and self._do(node, f"pause {node} {seconds:g}")

    def wipe_broker(self, *, quietly: bool) -> bool:
        return quietly and self._do(BROKER, "wipe")

    def _do(self, node: str, what: str) -> bool:
        if node != BROKER:
            self.done.append(what)
        return node != BROKER


class Desk:
    """A broker behind which the coordinator, at once, does what it is asked to."""

    max_payload_bytes = 1 << 20

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._known = {RUNNING: coordinator.begin(RUNNING), PARKED: coordinator.play(PARKED, refusing("capture"))}

    def publish(self, _subject: str, payload: bytes, _id: str, done: object, headers: object = None) -> None:
        for envelope in codec.decode(payload):
            message = from_envelope(envelope)
            assert isinstance(message, Control)
            event = Cancel() if message.action == "cancel" else Resume()
            self._coordinator.tell(self._known[message.saga_id], event, NOW + 1, "by an operator")


class Bench:
    """A helm, and all that it is given."""

    def __init__(self, data: Path) -> None:
        self.coordinator = Coordinator(data)
        self.coordinator.play(COMPLETED, always)
        self.desk = Desk(self.coordinator)
        self.processes, self.view, self.load = Processes(), mid_run(), load_of(5, [])
        self.stores = Stores(library.find("mixed"), data)
        self.stores._environments["coordinator"] = self.coordinator.environment  # one process opens it once
        self.helm = Helm(self.view, self.stores, SAGAS)
        self.view.faults.clear()

    def take(self) -> None:
        self.helm.take(cast(Cluster, self.processes), self.load, cast(Broker, self.desk))

    def press(self, keys: str, saga_id: str = "") -> None:
        for key in keys:
            self.helm.do(ACTS[key], saga_id)

    def press_and_wait(self, key: str, saga_id: str) -> str:
        """Press it on a running loop, and return what is remarked in the end."""

        async def press() -> None:
            self.take()
            self.press(key, saga_id)
            await asyncio.gather(*self.helm._asking)

        asyncio.run(press())
        return self.view.remarked[1]

    @property
    def faults(self) -> list[str]:
        """As the screen tells them."""
        for _, text in self.view.faults:
            assert text.startswith("by key: "), text
        return [text.removeprefix("by key: ") for _, text in self.view.faults]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.stores.close()


def told(helm: Helm) -> list[str]:
    return [words.partition(" s: ")[2] for words in helm.done]


def test_processes_are_harmed(bench: Bench) -> None:
    """Each key reaches its node, and the result will tell it; what cannot be done is said, and is no fault."""
    bench.take()
    bench.press("csCS")
    pause = f"{PAUSE_SECONDS:g}"
    assert bench.processes.done == [
        "strike coordinator",
        "strike services",
        f"pause coordinator {pause}",
        f"pause services {pause}",
    ]
    assert (
        bench.faults
        == told(bench.helm)
        == [
            "kill coordinator",
            "kill services",
            f"pause coordinator for {pause} s",
            f"pause services for {pause} s",
        ]
    )
    for key, words in (
        ("b", "kill broker"),
        ("B", "pause broker for 5 s"),
        ("w", "kill broker and delete its store"),
    ):
        bench.press(key)
        assert bench.view.remarked[1] == f"cannot {words}: it is down or paused, or not ours"
    assert len(bench.helm.done) == 4
    assert bench.helm.done[0].startswith("by key at ")


def test_the_load_is_slowed_and_brought_back(bench: Bench) -> None:
    """By halves down to nothing at all, and by doubling up to what it was; each change stands among the faults."""
    bench.take()
    loads: list[int] = []
    for key in "-------+++++++++":
        bench.press(key)
        assert bench.helm.holds_up() == (bench.load.concurrency < 50)  # what is to do nothing has not come to rest
        loads.append(bench.load.concurrency)
    assert loads == [25, 12, 6, 3, 1, 0, 0, 1, 2, 4, 8, 16, 32, 50, 50, 50]
    assert not bench.helm.holds_up()
    assert bench.faults[:2] == ["load: at most 25 orders under way", "load: at most 12 orders under way"]
    assert bench.faults[5] == "load: no new orders"
    assert len(bench.faults) == len(bench.helm.done) == 13
    assert bench.view.remarked[1] == "the load is as it was in the beginning"


def test_a_parked_saga_that_someone_looks_at_holds_up_the_run(bench: Bench) -> None:
    """It would be over before anything could be done about it."""
    bench.view.parked = {PARKED: "capture refused: no"}
    waits = []
    for selected in (RUNNING, PARKED, ""):
        bench.helm.attended = selected
        waits.append(bench.helm.holds_up())
    assert waits == [False, True, False]


def test_a_saga_is_cancelled(bench: Bench) -> None:
    """The coordinator is asked, and what came of it stands among the faults."""
    assert bench.press_and_wait("x", RUNNING) == f"cancel {RUNNING}: it is compensating"
    assert bench.faults == told(bench.helm) == [f"cancel {RUNNING}: it is compensating"]


def test_a_parked_saga_is_resumed(bench: Bench) -> None:
    """What it was stuck at is asked for again."""
    assert bench.press_and_wait("r", PARKED) == f"resume {PARKED}: it is running"
    assert bench.faults == told(bench.helm) == [f"resume {PARKED}: it is running"]


@pytest.mark.parametrize(
    ("key", "saga_id", "words"),
    [
        ("x", COMPLETED, f"cancel {COMPLETED}: too late to cancel; it is completed"),
        ("r", COMPLETED, f"resume {COMPLETED}: nothing to resume; it is completed"),
        ("r", RUNNING, f"resume {RUNNING}: nothing to resume; it is running"),
        ("x", "0123456789ab-no", "there is no saga 0123456789ab-no"),
        ("x", "", "select the saga to cancel first, with the arrows or j and k"),
    ],
)
def test_what_cannot_be_done_to_a_saga_is_said(bench: Bench, key: str, saga_id: str, words: str) -> None:
    """And is no fault."""
    assert bench.press_and_wait(key, saga_id) == words
    assert bench.faults == bench.helm.done == []


def test_before_and_after_the_run_there_is_nothing_to_steer(bench: Bench) -> None:
    """Keys do nothing then, and say so."""
    for key in "cSw-x":
        bench.press(key)
    assert bench.view.remarked[1].startswith("there is nothing to steer")
    bench.take()
    bench.helm.release()
    bench.press("c")
    assert bench.processes.done == bench.helm.done == []


def test_to_quit_is_to_interrupt(bench: Bench) -> None:
    """Whatever Ctrl-C does to a run, this key does."""
    with pytest.raises(KeyboardInterrupt):
        bench.press("q")


def test_a_coordinator_that_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever, and nothing is claimed to have been done."""
    monkeypatch.setattr(operate, "ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(bench.desk, "publish", lambda *_, **__: None)
    assert bench.press_and_wait("x", RUNNING).endswith("nothing has come of it in 0.01 s; it is running")
    assert bench.faults == bench.helm.done == []
