"""GroupCommit over a manual runner: no thread, no clock, each step taken by the test."""

import sys
from collections.abc import Sequence

import pytest

from persistence.environment import Environment
from persistence.errors import ClosedError
from persistence.transaction import Transaction
from tests.persistence.bench import Bench, raising, run_at_once


def test_one_turn_is_one_group(bench: Bench) -> None:
    """All works of one turn of the loop share one commit; nothing is reported before it, all in order after it."""
    for name in "cab":
        bench.submit(name)
    assert bench.loop.jobs == []
    bench.loop.turn()
    assert len(bench.loop.jobs) == 1
    assert bench.reports == []
    assert bench.committer.pending == 3
    bench.loop.commit()
    assert bench.reports == [("c", "c"), ("a", "a"), ("b", "b")]
    assert (bench.committer.commits, bench.committer.works, bench.committer.pending) == (1, 3, 0)
    assert bench.stored() == ["a", "b", "c"]


def test_works_gather_during_a_commit(bench: Bench) -> None:
    """What comes during a commit forms the next group, which starts at once when that is done."""
    bench.submit("1")
    bench.loop.turn()
    bench.submit("2")
    bench.submit("3")
    bench.loop.turn()
    assert len(bench.loop.jobs) == 1
    bench.loop.commit()
    assert bench.names() == ["1"]
    bench.loop.turn()
    assert len(bench.loop.jobs) == 1
    bench.loop.commit()
    assert bench.names() == ["1", "2", "3"]
    assert bench.committer.commits == 2


def test_works_see_those_before_them(bench: Bench) -> None:
    """Within a group a work reads what earlier works have written."""
    bench.submit("1")
    bench.submit("read", lambda tx: tx.get("a", b"1"))
    bench.loop.settle()
    assert bench.reports[1] == ("read", b"1")


def test_idle_costs_nothing(bench: Bench) -> None:
    """Without work there is no callback, no job and no commit."""
    bench.submit("1")
    bench.loop.settle()
    assert (bench.loop.ready, bench.loop.jobs, bench.loop.timers) == ([], [], [])


def test_group_size_is_bounded(environment: Environment) -> None:
    """No group is larger than max_group; order is kept across groups."""
    bench = Bench(environment, max_group=2)
    for name in "12345":
        bench.submit(name)
    bench.loop.settle()
    assert bench.names() == list("12345")
    assert bench.committer.commits == 3


def test_a_group_is_told_of_before_the_next_one_starts(environment: Environment) -> None:
    """`on_reported` comes once a group: behind all its reports, with the next group still to start."""
    seen: list[tuple[list[str], int, int]] = []

    def note() -> None:
        seen.append((bench.names(), len(bench.loop.jobs), len(bench.loop.ready)))

    bench = Bench(environment, max_group=2, on_reported=note)
    for name in "123":
        bench.submit(name)
    bench.loop.settle()
    assert seen == [(["1", "2"], 0, 1), (["1", "2", "3"], 0, 0)]


def test_synchronous_runner_keeps_order(environment: Environment) -> None:
    """A runner that does the job within the call changes nothing in the order of the reports."""
    bench = Bench(environment, run_job=run_at_once, max_group=2)
    for name in "1234567":
        bench.submit(name)
    bench.loop.settle()
    assert bench.names() == list("1234567")
    assert bench.committer.commits == 4


def test_submit_within_done(bench: Bench) -> None:
    """A callback may submit; that work joins a later group."""
    bench.committer.submit(lambda _: None, lambda _, __: bench.submit("later"))
    bench.loop.settle()
    assert bench.names() == ["later"]
    assert bench.committer.commits == 2


def test_work_that_raises(bench: Bench) -> None:
    """A work that raises leaves no trace and is told its error; the others are committed once, in order."""
    bench.submit("1")
    bench.submit("bad", raising)
    bench.submit("2")
    bench.submit("worse", raising)
    bench.loop.settle()
    assert bench.names() == ["1", "bad", "2", "worse"]
    assert [type(result) for _, result in bench.reports] == [str, LookupError, str, LookupError]
    assert bench.stored() == ["1", "2"]
    assert (bench.committer.commits, bench.committer.works) == (1, 2)
    assert bench.fatal == []


def test_a_work_that_has_raised_is_out(bench: Bench) -> None:
    """Though its group is run again without it: what is reported as failed must not be committed after all."""
    runs = 0

    def raise_once(tx: Transaction) -> None:
        nonlocal runs
        runs += 1
        tx.put("a", b"once", b"1")
        if runs == 1:
            raise LookupError("mine")

    bench.submit("1")
    bench.submit("once", raise_once)
    bench.loop.settle()
    assert isinstance(bench.reports[1][1], LookupError)
    assert bench.stored() == ["1"]


def test_a_work_that_wants_to_end_the_process_has_failed(bench: Bench) -> None:
    """SystemExit of a work, which may be a user's code, is its own failure and not that of the store."""
    bench.submit("1")
    bench.submit("bad", lambda _: sys.exit(3))
    bench.loop.settle()
    assert isinstance(bench.reports[1][1], SystemExit)
    assert (bench.stored(), bench.fatal) == (["1"], [])


def test_group_of_nothing_but_failures(bench: Bench) -> None:
    """A group whose only work raises commits nothing and reports the error."""
    bench.submit("bad", raising)
    bench.loop.settle()
    assert isinstance(bench.reports[0][1], LookupError)
    assert bench.committer.commits == bench.committer.works == 0


def test_many_failures_cost_two_runs(bench: Bench) -> None:
    """However many works of a group raise, each good one runs at most twice."""
    runs = 0

    def count(_: Transaction) -> None:
        nonlocal runs
        runs += 1

    for _ in range(25):
        bench.submit("good", count)
        bench.submit("bad", raising)
    bench.loop.settle()
    assert runs == 26
    assert bench.committer.works == 25


def test_a_long_burst_is_committed_in_parts(bench: Bench) -> None:
    """More than half of what a group may hold goes by halves: others begin while the rest is committed."""
    for number in range(100):
        bench.submit(str(number))
    bench.loop.turn()
    bench.loop.commit()
    assert bench.names() == [str(number) for number in range(50)]
    bench.loop.settle()
    assert bench.names() == [str(number) for number in range(100)]
    assert bench.committer.commits == 2


def test_done_that_raises(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in one callback is logged and keeps no other from being called."""

    def bad(_: object, __: BaseException | None) -> None:
        raise LookupError("callback")

    bench.committer.submit(lambda _: None, bad, about="bad one")
    bench.submit("1")
    bench.loop.settle()
    assert bench.names() == ["1"]
    assert "a callback raised after the commit of 'bad one'" in caplog.text
    assert bench.committer.pending == 0


def test_probe(environment: Environment) -> None:
    """The probe is told the works before and after the commit, without those that failed."""
    seen: list[tuple[str, Sequence[object], bool]] = []
    bench: Bench = Bench(environment, probe=lambda *at: seen.append((*at, bool(bench.reports))))
    bench.submit("1")
    bench.submit("bad", raising)
    bench.submit("2")
    bench.loop.settle()
    assert seen == [("commit.before", ["1", "2"], False), ("commit.after", ["1", "2"], False)]


@pytest.mark.parametrize(("point", "stored"), [("commit.before", []), ("commit.after", ["1"])])
def test_crash_in_probe(environment: Environment, point: str, stored: list[str]) -> None:
    """What the probe raises reaches the runner, before the commit with nothing written, after it with all."""

    class Crash(BaseException):
        pass

    def probe(at: str, _: Sequence[object]) -> None:
        if at == point:
            raise Crash

    bench = Bench(environment, probe=probe)
    bench.submit("1")
    bench.loop.turn()
    ((job, _),) = bench.loop.jobs
    with pytest.raises(Crash):
        job()
    assert bench.stored() == stored
    assert bench.reports == []


def test_it_says_when_only_the_disk_is_left(environment: Environment) -> None:
    """When all works of the group have run, and before it is committed: then the loop need not wait."""
    steps: list[str] = []
    bench = Bench(environment, probe=lambda point, _: steps.append(point), on_written=lambda: steps.append("written"))
    bench.submit("1", lambda _: steps.append("work"))
    bench.submit("2", lambda _: steps.append("work"))
    bench.loop.settle()
    assert steps == ["work", "work", "commit.before", "written", "commit.after"]


def test_close(bench: Bench) -> None:
    """After close no work is accepted; what was accepted before is committed and reported."""
    bench.submit("1")
    bench.committer.close()
    bench.submit("2")
    assert bench.reports == []
    bench.loop.settle()
    assert {name: type(result) for name, result in bench.reports} == {"1": str, "2": ClosedError}
    assert bench.stored() == ["1"]
    assert bench.fatal == []
