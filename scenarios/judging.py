"""Judges a run: what its orders came to, how fast it was, and whether all that was expected of it holds."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scenarios.calling import call
from scenarios.chaos.faults import REAL, STANDING
from scenarios.chaos.plan import FaultPlan
from scenarios.load import Load
from scenarios.scenario import Fate, Fault, Kill, Result, Scenario, ScenarioError, Sometimes
from scenarios.view import percentiles_ms
from scenarios.watching import Stores


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run that has ended leaves to be judged by: `injected` is what was done to it, in words. `complaint` says
    why it did not come to rest, if so."""

    stores: Stores
    load: Load
    now: float  # the load's loop's
    plan: FaultPlan
    injected: list[str]
    dead_letters: int
    complaint: str | None = None


def judge(scenario: Scenario, seed: int, evidence: Evidence) -> tuple[Result, dict[str, list[str]]]:
    """The result, and the services' books. Raises ScenarioError if the scenario's own code fails."""
    load, stores, plan = evidence.load, evidence.stores, evidence.plan
    findings, parked = stores.audit(settled=True), stores.parked()
    # Each order counts once: a parked one is set aside, whatever its services say of it so far.
    aside = [stores.status(saga_id) for saga_id in parked]
    for status in aside:
        findings.statuses[status] -= 1
    accused = [text for text in findings.violations if plan.patient or not any(saga in text for saga in parked)]
    ended, elapsed = load.sagas_ended(), _elapsed_seconds(evidence)
    result = Result(
        scenario.name,
        seed,
        "real",
        load.orders,
        completed=findings.statuses[Fate.COMPLETED.value],
        compensated=findings.statuses[Fate.COMPENSATED.value],
        rejected=load.ends[Fate.REJECTED.value],
        parked=len(parked),
        lost=max(0, findings.lost - aside.count("")),
        duplicate_effects=findings.duplicate_effects,
        violations=[*accused, *stores.impossible_sagas(), *load.wrong_ends(patient=plan.patient)],
        plan=plan.lines(REAL),
        faults_injected=evidence.injected,
        dead_letters=evidence.dead_letters,
        elapsed_seconds=round(elapsed, 3),
        sagas_per_second=round(len(ended) / elapsed, 1) if elapsed > 0 else 0.0,
        latency_ms=percentiles_ms([j.ended_at - j.sent_at for j in ended if j.ended_at is not None]),
        latency_to_pivot_ms=percentiles_ms([j.pivot_at - j.sent_at for j in ended if j.pivot_at is not None]),
        counters=stores.counters(),
    )
    if evidence.complaint is not None:
        result.violations.append(evidence.complaint)
    elif load.sent < load.orders:
        unsent = load.orders - load.sent
        result.violations.append(
            f"{unsent} of {load.orders} orders were not sent: all that were under way are parked"
        )
    found = result.completed + result.compensated + result.rejected + result.parked
    if not result.violations and found != result.orders:
        result.violations.append(f"{result.orders} orders went in, but {found} came out")
    missed = never_came([*plan.kills, *plan.faults], evidence.injected, REAL)
    hold_to(scenario, result, missed, with_drawn=plan.is_drawn(scenario))
    return result, findings.books


def never_came(faults: Iterable[Kill | Fault], injected: Iterable[str], mode: str) -> list[Kill | Fault]:
    """Those of the faults that have not been carried out, by what was; of equal ones each must have been.

    Those that have no moment, and those that the mode cannot carry out, are not missed.
    """
    came = Counter(injected)
    left = []
    for fault in faults:
        if isinstance(fault, Fault) and (fault.kind in STANDING or fault.why_not(mode)):
            continue
        came[str(fault)] -= 1
        if came[str(fault)] < 0:
            left.append(fault)
    return left


def hold_to(scenario: Scenario, result: Result, missed: Sequence[Kill | Fault], *, with_drawn: bool = False) -> None:
    """Hold a result to the scenario's faults and expectations, and give the verdict. `missed` never came.

    A fault that never came and what `Sometimes` did not happen are violations, but only notes in a run of fewer
    orders than the scenario's own. Under faults that were drawn no story goes as it was told: what does not hold of
    it is a note. Raises ScenarioError if an expectation cannot be used.
    """
    unseen = [f"{fault} never came" for fault in missed]
    broken: list[str] = []
    for i, expectation in enumerate(scenario.expectations):
        words = call(f"expectation {i + 1}", expectation, result)
        if not isinstance(words, str | None):
            raise ScenarioError(
                f"scenario {scenario.name!r}: expectation {i + 1} must give text or None, not {words!r}"
            )
        if words is not None:
            (unseen if isinstance(expectation, Sometimes) else broken).append(words)
    if with_drawn:
        result.notes += [f"under drawn faults: {words}" for words in [*unseen, *broken]]
    elif result.orders < scenario.orders:
        result.notes += [f"with {result.orders} orders instead of {scenario.orders}: {words}" for words in unseen]
        result.violations += broken
    else:
        result.violations += [*broken, *unseen]
    result.verdict = "failed" if result.violations or result.lost or result.duplicate_effects else "passed"


def _elapsed_seconds(evidence: Evidence) -> float:
    """From the first request to the last end; the time in which nothing but parked sagas was left does not count."""
    load = evidence.load
    end = load.progress_at if load.ended and evidence.complaint is None else evidence.now
    return (load.ended_at or end) - load.begun_at
