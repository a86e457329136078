"""Crash every node at every boundary: everything ends as it must, and an engine that is broken is found out."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from actors.messages import Command, to_envelope
from actors.node import Node
from actors.saga import SagaActor
from actors.service import Service
from broker.port import Delivery
from broker.receipt import Receipt
from scenarios.scenario import Scenario, ScenarioError
from scenarios.shop.domain import malformed
from scenarios.simulation.crash_life import Life, live
from scenarios.simulation.crash_points import explore_crash_points, main, repeat, repetitions
from scenarios.simulation.crash_report import CrashReport
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.trace import hearer
from scenarios.simulation.world import SimulatedWorld
from scenarios.stories import happy, out_of_stock
from tests.scenarios.hermetic import outside_calls


def complaints(report: CrashReport) -> list[str]:
    return [complaint for failure in report.failures for complaint in failure.complaints]


def test_every_single_crash_of_one_saga_ends_well() -> None:
    """One saga, on each of its ways: whichever boundary a node dies at, all is as it must be; none is left out."""
    report = explore_crash_points(happy.scenario, sagas=(1,))
    assert report.failures == []
    assert report.uncovered == []
    assert report.singles == report.boundaries > 800
    assert [name for name, _ in report.cases] == [
        "success.1", "rejected.1", "reserve-refused.1", "authorize-refused.1", "prepare-refused.1",
        "confirm-refused.1", "confirm-unknown.1", "dispatch-refused.1", "undo-prepare-unknown.1",
        "cancel.1", "cancel-late.1",
    ]  # fmt: skip
    assert report.render()[-1].startswith("passed: 0 of")


def test_a_scenario_that_never_completes_is_explored_as_it_is() -> None:
    """A load of refused orders has one way, and what that way never passes is shown as uncovered."""
    report = explore_crash_points(out_of_stock.scenario, sagas=(1,))
    assert report.failures == []
    assert [name for name, _ in report.cases] == ["as-drawn.1"]
    assert ("order", "commit.before", "do confirm") in report.uncovered
    assert not report.passed
    assert any("NONE" in line for line in report.render())


def test_two_crashes_repeat_exactly() -> None:
    """A run is named by its case and points, comes out the same to the last boundary, and asks nothing outside."""
    spec = "reserve-refused.1@main:commit.before:1,main:publish.after:2"
    first = repeat(happy.scenario, spec)
    with outside_calls() as calls:
        again = repeat(happy.scenario, spec)
    assert first.complaints == []
    assert [passing.point.node for passing in first.crashed] == ["main", "main"]
    assert first.passings == again.passings
    assert calls == []


@pytest.fixture
def rejected() -> Scenario:
    """The shortest of all ways: an order that is refused before any saga starts."""
    return replace(happy.scenario, load=lambda _random, _i: malformed(Random(1), 0))


def test_the_second_crash_comes_at_every_boundary_of_the_recovery(
    rejected: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until all is at rest again, with one saga and with two, a node crashes at all that is done after the first."""
    lives: list[Life] = []

    def watched(*args: Any, **kwargs: Any) -> Life:
        lives.append(live(*args, **kwargs))
        return lives[-1]

    monkeypatch.setattr("scenarios.simulation.crash_points.live", watched)
    report = explore_crash_points(rejected, double=True, workers=1)
    assert report.failures == []
    tried = {(life.case, life.points) for life in lives}
    assert len([points for _, points in tried if len(points) == 2]) == report.doubles
    firsts = {(life.case, life.points[0]) for life in lives if len(life.points) == 2}
    missing = [
        passing.point
        for life in lives
        if len(life.points) == 1 and (life.case, life.points[0]) in firsts
        for passing in life.passings
        if (life.case, (*life.points, passing.point)) not in tried
    ]
    assert missing
    assert all(point.boundary.endswith(".before") for point in missing)
    assert {case.sagas for case, _ in firsts} == {1, 2}
    assert sum(len(life.passings) for life in lives if len(life.points) == 1) == report.pairs
    assert any("until all is at rest again" in line for line in report.render())


def test_crashes_that_are_passed_over_are_the_same_as_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that crashes there comes back to the same store, and to the same deliveries without an ack."""
    found: list[tuple[object, object]] = []
    start = SimulatedWorld.start

    def looked_at(world: SimulatedWorld, node: SimulatedNode) -> None:
        start(world, node)
        with node.environment.read() as tx:
            tables = [list(tx.scan(table)) for table in node.plan.tables]
        durables = [durable for stream in world.broker.store.streams.values() for durable in stream.durables.values()]
        mine = [durable for durable in durables if hearer(durable.config.filter_subject) == node.name]
        found.append((tables, [sorted(durable.pending) for durable in mine]))

    passings = repeat(happy.scenario, "success.1@").passings
    monkeypatch.setattr(SimulatedWorld, "start", looked_at)
    again = repetitions(passings)
    assert len(again) > 30
    for place, here in enumerate(passings):
        if here.point in again:
            before = next(p for p in reversed(passings[:place]) if p.point.node == here.point.node)
            found.clear()
            for point in (before.point, here.point):
                repeat(happy.scenario, f"success.1@{point}")
            assert found[0] == found[1], f"{here.point} is another crash than {before.point}"


def test_a_crash_at_the_very_last_boundary_ends_well_too() -> None:
    """A node that dies when no message is left comes back, and only then is the world at rest."""
    last = repeat(happy.scenario, "success.1@order:commit.before:2").passings[-1].point
    life = repeat(happy.scenario, f"success.1@order:commit.before:2,{last}")
    assert life.complaints == []
    assert life.passings == []


def test_the_command_line_repeats_a_run() -> None:
    """The line that a failure prints runs that very run, and says how it ended."""
    said: list[str] = []
    assert main(happy.scenario, False, at="success.1@main:ack.before:1", say=said.append) == 0
    assert said[0].startswith("crashed at main:ack.before:1, start")
    assert said[-1] == "passed"


@pytest.mark.parametrize("spec", ["success.1@main", "success.1@main:commit.during:1", "nothing.1@main:ack.after:1"])
def test_a_spec_that_names_no_run_is_refused(spec: str) -> None:
    """One clear line, and no run."""
    with pytest.raises(ScenarioError):
        repeat(happy.scenario, spec)


def test_a_point_that_is_never_come_to_is_a_failure() -> None:
    """Nothing passes for tested that never happened."""
    assert repeat(happy.scenario, "success.1@main:ack.before:999").complaints == ["never came to main:ack.before:999"]


# --- who watches the watchers --------------------------------------------------------------------------------------


def test_a_service_that_publishes_before_it_commits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that is on its way before its effect is on the disk."""

    class UndoneError(Exception):
        """Rolls back what was only tried."""

    submit = Service._submit

    def hasty(self: Service, commands: list[Command], receipt: Receipt) -> None:
        batch: Any = None
        try:
            with self._node.environment.write() as tx:
                batch = self._work(commands, self._node.now(), tx)
                raise UndoneError
        except UndoneError:
            for command, reply in batch.replies:
                self._node.batcher.send(f"saga.reply.{command.reply_to}", to_envelope(reply), receipt)
        submit(self, commands, receipt)

    monkeypatch.setattr(Service, "_submit", hasty)
    life = repeat(happy.scenario, "success.1@shipping:commit.before:1")
    assert any("unsaved: the ledger says nothing" in complaint for complaint in life.complaints)
    assert any(" unsaved: " not in complaint for complaint in life.complaints), "its effect is lost"


def test_a_coordinator_that_publishes_before_it_commits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is on its way before the snapshot knows of it."""
    saved_later = SagaActor.on_turn_end

    def turn_end(self: SagaActor) -> None:
        for _, outgoing, receipt in self._unsaved:
            for send, command in outgoing:
                self._send(send, command, receipt)
        saved_later(self)

    monkeypatch.setattr(SagaActor, "on_turn_end", turn_end)
    report = explore_crash_points(happy.scenario, sagas=(1,), workers=1, limit=1)
    assert any(
        "'do open' to order unsaved: the saga is not in the store" in complaint for complaint in complaints(report)
    )


def acknowledge_at_once(cls: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a class let go of its receipts as soon as it has read a delivery."""
    original = getattr(cls, name)

    def hasty(self: Any, mail: Any, *rest: Any) -> object:
        mail.delivery.ack()
        self._node.probe("ack.before", mail.delivery)
        return original(self, mail, *rest)

    monkeypatch.setattr(cls, name, hasty)


def test_a_service_that_acknowledges_before_it_commits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries would hide it: so each acknowledgement is checked when it is made."""
    acknowledge_at_once(Service, "on_receive", monkeypatch)
    report = explore_crash_points(happy.scenario, sagas=(1,), workers=1, limit=1)
    assert any(
        "'do place' too early: the broker has no answer to it" in complaint for complaint in complaints(report)
    )


@pytest.mark.parametrize("hasty", [False, True])
@pytest.mark.parametrize(
    ("path", "asks"), [("dispatch-refused.1", "do dispatch"), ("undo-prepare-unknown.1", "undo prepare")]
)
def test_a_resume_that_gets_lost_is_caught(
    path: str, asks: str, hasty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator resumes once what has parked; a coordinator that acknowledges that unsaved can lose it."""
    if hasty:
        opened = Node.open

        def acknowledged(self: Node, delivery: Delivery) -> object:
            delivery.ack()
            return opened(self, delivery)

        monkeypatch.setattr(Node, "open", acknowledged)
    passings = repeat(happy.scenario, f"{path}@").passings
    parked = next(i for i, passing in enumerate(passings) if "event parked" in passing.labels)
    later = (passing for passing in passings[parked:] if asks in passing.labels)
    saves = next(passing.point for passing in later if passing.point[:2] == ("main", "commit.before"))
    life = repeat(happy.scenario, f"{path}@{saves}")
    assert any("1 sagas are parked" in complaint for complaint in life.complaints) == hasty
    assert hasty or not life.complaints


def test_a_late_message_is_not_acknowledged_before_what_made_it_late_is_saved() -> None:
    """A reply that a cancel has overtaken waits for that cancel: a crash would undo the one and not the other."""
    assert repeat(happy.scenario, "cancel.1@").complaints == []


def test_a_coordinator_that_does_not_ask_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rehydrated saga that does not ask again never ends."""
    monkeypatch.setattr("actors.saga.waiting_for", lambda _state: ())
    monkeypatch.setattr("actors.supervisor.waiting_for", lambda _state: ())
    life = repeat(happy.scenario, "success.1@main:commit.after:1")
    assert any("unfinished" in complaint or "waits for" in complaint for complaint in life.complaints)
