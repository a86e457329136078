"""Resume and cancel by hand, with and without a coordinator: what cannot be done is said, and what can is saved."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import run_sim
from actors.ids import new_id
from actors.record import Record
from actors.state import Answered, Cancel, Hold, Outcome, Resume, TimedOut, Verb
from broker.codec import pack
from persistence import snapshots
from persistence.environment import Environment
from persistence.lockfile import LockFile
from scenarios import operate
from scenarios.operate import Answer
from scenarios.scenario import COORDINATOR
from scenarios.shop.sagas import ORDER
from tests.scenarios.played import NOW, STEPS, Coordinator, always, refusing, write

COMPLETED, COMPENSATED, PARKED, RUNNING, BROKEN = (new_id(NOW + i, f"s{i}") for i in range(5))
CONFIRM = STEPS.index("confirm")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with sagas in several states, and no coordinator."""
    coordinator = Coordinator(tmp_path)
    coordinator.play(COMPLETED, always)
    coordinator.play(COMPENSATED, refusing("authorize"))
    coordinator.play(PARKED, refusing("capture"))
    coordinator.begin(RUNNING)
    coordinator.environment.update(lambda tx: snapshots.save(tx, BROKEN, b"\xc1"))
    coordinator.environment.close()
    return tmp_path


def run(
    data: Path, action: str, saga_id: str, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, str]:
    status = run_sim.main([action, str(data), saga_id, *words])
    return status, *capsys.readouterr()


@contextmanager
def held(data: Path) -> Iterator[None]:
    """As if a coordinator were running: its lock is taken, and its broker is not to be reached."""
    lock = LockFile.acquire(data / COORDINATOR)
    (data / "broker.url").write_text("nats://127.0.0.1:1")
    yield
    lock.release()


@pytest.fixture
def live(data: Path) -> Iterator[Path]:
    """The same with a coordinator, which is never asked."""
    with held(data):
        yield data


# --- what is said, in both ways ---------------------------------------------------------------------------------

REFUSALS = [
    ("cancel", COMPLETED, 1, f"{COMPLETED}: too late to cancel; it is completed"),
    ("cancel", COMPENSATED, 0, f"{COMPENSATED}: nothing to cancel; it is compensated"),
    (
        "cancel",
        PARKED,
        1,
        f"{PARKED}: too late to cancel; its pivot confirm is done, and it only goes forward; "
        "it is parked: capture refused: no",
    ),
    ("resume", COMPLETED, 0, f"{COMPLETED}: nothing to resume; it is completed"),
    ("resume", RUNNING, 0, f"{RUNNING}: nothing to resume; it is running"),
]


@pytest.mark.parametrize("way", ["data", "live"])
@pytest.mark.parametrize(("action", "saga_id", "status", "says"), REFUSALS)
def test_what_cannot_be_done(
    request: pytest.FixtureRequest, way: str, action: str, saga_id: str, status: int, says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A request that comes too late is refused with the reason and status 1; one without need has status 0."""
    found = run(request.getfixturevalue(way), action, saga_id, capsys)
    assert found == (status, f"{says}\n", "")


@pytest.mark.parametrize("way", ["data", "live"])
@pytest.mark.parametrize("action", ["resume", "cancel"])
@pytest.mark.parametrize(
    ("saga_id", "says"),
    [
        ("", "'' is no saga id"),
        ("a b", "'a b' is no saga id"),
        ("ünknown", "'ünknown' is no saga id"),
        ("x" * 600, "is no saga id"),
        (new_id(NOW, "nobody"), f"there is no saga {new_id(NOW, 'nobody')}"),
        (BROKEN, f"saga {BROKEN}: not a snapshot"),
    ],
)
def test_bad_requests(
    request: pytest.FixtureRequest, way: str, action: str, saga_id: str, says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """An id that is none, that nobody has, or whose snapshot cannot be understood: one line and status 2."""
    status, out, err = run(request.getfixturevalue(way), action, saga_id, capsys)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


# --- without a coordinator --------------------------------------------------------------------------------------


def states(data: Path, saga_id: str) -> tuple[str, str]:
    """A saga's phase, and the event of its last transition."""
    environment = Environment.open_read_only(data / COORDINATOR)
    standing = operate._standing(environment, saga_id)
    environment.close()
    return standing.record.state.phase.name, standing.entries[-1].event


def test_cancelled_in_its_stead(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cancel in time is saved, and goes on with the next start."""
    status, out, _ = run(data, "cancel", RUNNING, capsys)
    assert (status, out) == (0, f"{RUNNING}: cancel is saved; it goes on when its coordinator is started\n")
    assert states(data, RUNNING) == ("COMPENSATING", "cancel")


def test_cancelled_at_the_pivot(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While the pivot is in flight only its service can say whether a cancel is in time: that is said."""
    asked_for_its_pivot(data)
    status, out, _ = run(data, "cancel", RUNNING, capsys)
    assert status == 0
    assert "the cancel comes too late and the saga goes forward" in out


def asked_for_its_pivot(data: Path) -> Record:
    coordinator = Coordinator(data)
    record = coordinator.begin(RUNNING)
    for step in ORDER.needs[CONFIRM]:
        coordinator.tell(record, Answered(step, Verb.DO, 0, 1, Outcome.DONE), NOW + 1, {})
    coordinator.environment.close()
    return record


def test_resumed_in_its_stead(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A parked saga is resumed, and no longer parked."""
    status, out, _ = run(data, "resume", PARKED, capsys)
    assert (status, out) == (0, f"{PARKED}: resume is saved; it goes on when its coordinator is started\n")
    assert states(data, PARKED) == ("RUNNING", "resume")


def test_a_definition_that_is_not_known_here(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is guessed about a saga of another definition, and nothing changed."""
    other = COMPLETED.replace("s0", "other")
    coordinator = Coordinator(data)
    record = coordinator.begin(other)
    record.definition = "trip"
    coordinator.tell(record, Hold(), NOW, "set aside")
    coordinator.environment.close()
    status, _, err = run(data, "resume", other, capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "its definition 'trip' is not the one known here" in err


def test_a_directory_of_served_nodes(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no run.json: what cannot be done without its definitions is done with --scenario, and says so."""
    (data / "run.json").unlink()
    status, out, err = run(data, "cancel", RUNNING, capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--scenario says whose it is" in err
    status, _, err = run(data, "cancel", RUNNING, capsys, "--scenario", "nothing-of-the-kind")
    assert (status, err.count("\n")) == (2, 1)
    assert run_sim.main(["inspect", str(data), RUNNING, "--scenario", "everything"]) == 0
    assert "reserve" in capsys.readouterr().out
    status, out, _ = run(data, "cancel", RUNNING, capsys, "--scenario", "everything")
    assert (status, out) == (0, f"{RUNNING}: cancel is saved; it goes on when its coordinator is started\n")


@pytest.mark.parametrize(
    ("action", "status", "says"), [("cancel", 1, "too late to cancel"), ("resume", 0, "nothing to resume")]
)
def test_an_ended_saga_whose_definition_is_not_known_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, status: int, says: str
) -> None:
    """Beside a coordinator too it is said at once: nobody is asked, so no broker is needed."""
    coordinator = Coordinator(tmp_path)
    coordinator.play(COMPLETED, always)
    coordinator.environment.close()
    (tmp_path / "run.json").unlink(missing_ok=True)
    with held(tmp_path):
        assert run(tmp_path, action, COMPLETED, capsys) == (status, f"{COMPLETED}: {says}; it is completed\n", "")


# --- through the coordinator: what is told of what it does -------------------------------------------------------


class Asked:
    """A request on its way to a coordinator, which is played by hand."""

    def __init__(self, tmp_path: Path) -> None:
        self.coordinator = Coordinator(tmp_path)
        self.record = self.coordinator.begin(RUNNING)
        for step in ORDER.needs[CONFIRM]:
            self.tell(Answered(step, Verb.DO, 0, 1, Outcome.DONE))
        self.known = self.record.sequence

    def tell(self, event: Answered | Cancel | Resume | TimedOut | Hold) -> None:
        self.coordinator.tell(self.record, event, NOW, "an operator")

    def answer(self, action: str) -> Answer:
        return asyncio.run(operate._answer(self.coordinator.environment, ORDER, RUNNING, action, self.known))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A saga that waits for its pivot; nobody waits longer than for one look."""
    monkeypatch.setattr(operate, "ANSWER_SECONDS", 0.0)
    monkeypatch.setattr(operate, "SETTLE_SECONDS", 0.0)
    asked = Asked(tmp_path)
    yield asked
    asked.coordinator.environment.close()


def test_the_pivot_was_faster(asked: Asked) -> None:
    """A cancel that meets a pivot done meanwhile is refused with the reason, though the journal has no word of it."""
    asked.tell(Answered(CONFIRM, Verb.DO, 0, 1, Outcome.DONE))
    assert asked.answer("cancel") == Answer(
        f"{RUNNING}: too late to cancel; its pivot confirm is done, and it only goes forward; it is running", True
    )


def test_the_pivot_was_kept(asked: Asked) -> None:
    """A cancel that was saved, and that the pivot's service has answered with `kept`, came too late."""
    asked.tell(Cancel())
    asked.tell(Answered(CONFIRM, Verb.UNDO, 0, 1, Outcome.KEPT))
    found = asked.answer("cancel")
    assert found.is_refused
    assert "too late to cancel; its pivot confirm is done" in found.text


def test_the_pivot_is_not_settled(asked: Asked) -> None:
    """As long as the pivot's service has not answered, nobody knows whether the cancel came in time."""
    asked.tell(Cancel())
    found = asked.answer("cancel")
    assert not found.is_refused
    assert found.text.startswith(f"{RUNNING}: asked its coordinator to cancel it; it is compensating; its pivot was")


def test_cancelled_in_time(asked: Asked) -> None:
    """The pivot was not done: it goes back."""
    asked.tell(Cancel())
    asked.tell(Answered(CONFIRM, Verb.UNDO, 0, 1, Outcome.DONE))
    assert asked.answer("cancel") == Answer(f"{RUNNING}: asked its coordinator to cancel it; it is compensating")


def test_resumed_by_its_coordinator(asked: Asked) -> None:
    """A resume that stands in the journal was heard."""
    asked.tell(Hold())
    asked.known = asked.record.sequence
    asked.tell(Resume())
    assert asked.answer("resume") == Answer(f"{RUNNING}: asked its coordinator to resume it; it is running")


def test_a_transition_of_another_kind_is_no_answer(asked: Asked) -> None:
    """What else happens to the saga says nothing about the request: without a word in the journal it is open."""
    asked.tell(Hold())
    found = asked.answer("cancel")
    assert found.is_refused
    assert found.text == (
        f"{RUNNING}: asked its coordinator to cancel it; nothing has come of it in 0 s; it is parked: an operator"
    )


def test_ended_before_it_was_heard(asked: Asked) -> None:
    """A saga that has gone back by itself meanwhile needs no cancel."""
    asked.tell(Answered(CONFIRM, Verb.DO, 0, 1, Outcome.REFUSED))
    for step in ORDER.needs[CONFIRM]:
        asked.tell(Answered(step, Verb.UNDO, 0, 1, Outcome.DONE))
    assert asked.answer("cancel") == Answer(f"{RUNNING}: nothing to cancel; it is compensated", is_vain=True)


def test_a_saga_that_its_coordinator_does_not_understand(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A saga parked untouched is not taken for a running one: its coordinator is asked, and is out of reach here."""
    write(data, COORDINATOR, lambda tx: snapshots.park(tx, RUNNING, pack([NOW, "definition not known"])))
    with held(data):
        status, _, err = run(data, "resume", RUNNING, capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "127.0.0.1:1" in err
