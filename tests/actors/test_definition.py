"""Definitions: every mistake is found when a saga is built, in words that name the step."""

import re
from typing import Any

import pytest

from actors.definition import PERSISTENT, DefinitionError, Kind, Retry, Saga, Siblings, Step, View, whole_input


def compensatable(name: str, *after: str, **more: Any) -> Step:
    return Step(name, "service", "act", compensation="undo", after=after, **more)


def pivot(name: str, *after: str, **more: Any) -> Step:
    return Step(name, "service", "act", after=after, kind=Kind.PIVOT, **more)


def retriable(name: str, *after: str, **more: Any) -> Step:
    return Step(name, "service", "act", after=after, kind=Kind.RETRIABLE, **more)


def order(**more: Any) -> Saga:
    steps = (
        compensatable("reserve"),
        compensatable("charge"),
        pivot("confirm", "reserve", "charge"),
        retriable("ship", "confirm"),
    )
    return Saga("order", steps, **more)


# --- what is right -------------------------------------------------------------------------------------------------


def test_a_saga_knows_its_graph() -> None:
    """Needs, dependents, pivot and index are derived from the steps, by number."""
    saga = order()
    assert saga.index == {"reserve": 0, "charge": 1, "confirm": 2, "ship": 3}
    assert saga.needs == ((), (), (0, 1), (2,))
    assert saga.dependents == ((2,), (2,), (3,), ())
    assert saga.pivot == 2


def test_steps_may_stand_in_any_order() -> None:
    """Only `after` counts: a step may be written before the steps that it needs."""
    saga = Saga("order", (compensatable("late", "early"), compensatable("early")))
    assert saga.needs == ((1,), ())
    assert saga.pivot is None


def test_a_need_named_twice_is_one_need() -> None:
    """Repeating a step in `after` changes neither the graph nor its fingerprint."""
    once, twice = (Saga("s", (compensatable("a"), compensatable("b", *after))) for after in (("a",), ("a", "a")))
    assert once.needs == twice.needs == ((), (0,))
    assert once.fingerprint == twice.fingerprint


def test_a_pivot_may_be_preceded_through_other_steps() -> None:
    """A compensatable step need not be right before the pivot, nor a retriable one right after it."""
    Saga(
        "s", (compensatable("a"), compensatable("b", "a"), pivot("p", "b"), retriable("r", "p"), retriable("q", "r"))
    )


def test_definitions_are_immutable_and_hashable() -> None:
    """A definition cannot be changed once it is validated, and equal ones are one key."""
    saga = order()
    with pytest.raises(AttributeError):
        saga.name = "other"  # type: ignore[misc]  # mypy forbids it too
    with pytest.raises(AttributeError):
        saga.steps[0].after = ("ship",)  # type: ignore[misc]  # mypy forbids it too
    assert len({saga, order()}) == 1


# --- every mistake -------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, tuple[Step, ...], str]] = [
    ("no steps", (), "saga 'shop' has no steps"),
    (
        "a cycle",
        (compensatable("a", "c"), compensatable("b", "a"), compensatable("c", "b")),
        "saga 'shop': a cycle runs through or before the steps 'a', 'b', 'c'",
    ),
    ("a step after itself", (compensatable("a", "a"),), "a cycle runs through or before the steps 'a'"),
    (
        "a cycle beside what is right",
        (compensatable("x"), compensatable("a", "b"), compensatable("b", "a")),
        "a cycle runs through or before the steps 'a', 'b'",
    ),
    (
        "an unknown dependency",
        (compensatable("a", "ghost"),),
        "step 'a' comes after 'ghost', and there is no such step",
    ),
    ("a duplicate name", (compensatable("a"), compensatable("a")), "saga 'shop': two steps are named 'a'"),
    (
        "two pivots",
        (pivot("p"), pivot("q", "p")),
        "saga 'shop' has two pivots, 'p' and 'q': at most one step decides",
    ),
    (
        "compensatable after the pivot",
        (pivot("p"), compensatable("a", "p")),
        "step 'a' is compensatable and must come before the pivot 'p'",
    ),
    (
        "compensatable beside the pivot",
        (compensatable("a"), pivot("p")),
        "step 'a' is compensatable and must come before the pivot 'p'",
    ),
    (
        "neither compensates nor comes after the pivot",
        (Step("a", "service", "act"),),
        "step 'a' neither has a compensation nor is it the pivot or a retriable step after one",
    ),
    ("retriable without pivot", (retriable("r"),), "step 'r' is retriable, and the saga has no pivot"),
    (
        "retriable beside the pivot",
        (pivot("p"), retriable("r")),
        "step 'r' is retriable and must come after the pivot 'p'",
    ),
    (
        "retriable before the pivot",
        (retriable("r"), pivot("p", "r")),
        "step 'r' is retriable and must come after the pivot 'p'",
    ),
    (
        "a pivot with a compensation",
        (Step("p", "service", "act", compensation="undo", kind=Kind.PIVOT),),
        "step 'p' is pivot: it is never undone and can have no compensation",
    ),
    (
        "a retriable step with a compensation",
        (pivot("p"), Step("r", "service", "act", "undo", after=("p",), kind=Kind.RETRIABLE)),
        "step 'r' is retriable: it is never undone and can have no compensation",
    ),
    ("no timeout", (compensatable("a", timeout_seconds=0),), "step 'a': the timeout must be positive, not 0"),
    ("a negative timeout", (compensatable("a", timeout_seconds=-1.5),), "step 'a': the timeout must be positive"),
    (
        "a string for a tuple",
        (compensatable("a"), Step("b", "service", "act", "undo", after="a")),  # type: ignore[arg-type]  # as a user without mypy may
        "step 'b': 'after' is a tuple of step names, not a str",
    ),
]


@pytest.mark.parametrize(("steps", "message"), [pytest.param(*case[1:], id=case[0]) for case in MISTAKES])
def test_every_mistake_is_found_when_it_is_built(steps: tuple[Step, ...], message: str) -> None:
    """A saga that cannot be right is never built, and the message names the step."""
    with pytest.raises(DefinitionError, match=re.escape(message)):
        Saga("shop", steps)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", 5, "saga 'shop', step 5: 'name' is text, not an int"),
        ("service", None, "'service' is text, not a NoneType"),
        ("action", 5, "'action' is text, not an int"),
        ("compensation", 5, "'compensation' is text or None, not an int"),
        ("after", ["a"], "'after' is a tuple of step names, not a list"),
        ("after", (["a"],), "comes after ['a'], and there is no such step"),
        ("kind", "pivot", "'kind' is a Kind, not a str"),
        ("timeout_seconds", "5", "'timeout_seconds' is a number, not a str"),
        ("timeout_seconds", True, "'timeout_seconds' is a number, not a bool"),
        ("timeout_seconds", 10**400, "the timeout must be positive, not 1000"),
        ("retry", 3, "'retry' is a Retry or None, not an int"),
        ("undo_retry", None, "'undo_retry' is a Retry, not a NoneType"),
        ("payload", {"a": 1}, "'payload' is a function of a View, not a dict"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(field: str, value: Any, says: str) -> None:
    """With its saga and its step, instead of what Python says of it somewhere else."""
    fields = {"name": "first", "service": "service", "action": "act", "compensation": "undo", field: value}
    with pytest.raises(DefinitionError, match=re.escape(says)) as caught:
        Saga("shop", (Step(**fields),))
    assert str(caught.value).startswith(f"saga 'shop', step {fields['name']!r}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((5, (compensatable("a"),)), "saga 5: 'name' is text, not an int"),
        (("shop", [compensatable("a")]), "saga 'shop': 'steps' is a tuple of steps, not a list"),
        (("shop", ("a",)), "saga 'shop': step 1 is a Step, not a str"),
        (("shop", (compensatable("a"),), "2"), "saga 'shop': 'version' is a whole number, not a str"),
        (("shop", (compensatable("a"),), 1, "drain"), "saga 'shop': 'siblings' is a Siblings, not a str"),
    ],
)
def test_a_saga_of_the_wrong_types_is_refused(arguments: tuple[Any, ...], says: str) -> None:
    """Its own fields too, and whatever stands among its steps."""
    with pytest.raises(DefinitionError, match=re.escape(says)):
        Saga(*arguments)


@pytest.mark.parametrize("bad", ["", "two words", "dot.ted", "star*", "a" * 65, "é", "line\n"])
def test_every_name_is_a_token(bad: str) -> None:
    """What may come to stand in a subject or a key is checked at once, whichever name it is."""
    with pytest.raises(DefinitionError, match=re.escape(f"saga {bad!r}")):
        Saga(bad, (compensatable("a"),))
    for field, step in {
        "step": Step(bad, "service", "act", "undo"),
        "service": Step("a", bad, "act", "undo"),
        "action": Step("a", "service", bad, "undo"),
        "compensation": Step("a", "service", "act", bad),
    }.items():
        with pytest.raises(DefinitionError, match=re.escape(f"saga 'shop': {field} {bad!r}")):
            Saga("shop", (step,))


def test_versions_start_at_one() -> None:
    """A version of zero or less is a mistake."""
    with pytest.raises(DefinitionError, match="the version must be 1 or more, not 0"):
        order(version=0)


# --- the fingerprint -----------------------------------------------------------------------------------------------


def test_the_fingerprint_is_stable() -> None:
    """It is stored in snapshots: the same graph has the same fingerprint in every process and release."""
    assert order().fingerprint == order().fingerprint == "bfdf41c0ae7ad875"


def test_the_fingerprint_changes_with_what_running_sagas_depend_on() -> None:
    """Name, version, policy, and each step's name, service, handlers, needs, kind and place make a difference."""
    sagas = [
        Saga("s", (compensatable("a"), compensatable("b"))),
        Saga("t", (compensatable("a"), compensatable("b"))),
        Saga("s", (compensatable("a"), compensatable("b")), version=2),
        Saga("s", (compensatable("a"), compensatable("b")), siblings=Siblings.DRAIN),
        Saga("s", (compensatable("b"), compensatable("a"))),
        Saga("s", (compensatable("a"), compensatable("b", "a"))),
        Saga("s", (compensatable("a"), compensatable("c"))),
        Saga("s", (compensatable("a"),)),
        Saga("s", (compensatable("a"), Step("b", "other", "act", "undo"))),
        Saga("s", (compensatable("a"), Step("b", "service", "other", "undo"))),
        Saga("s", (compensatable("a"), Step("b", "service", "act", "other"))),
        Saga("s", (compensatable("a"), pivot("b", "a"))),
        Saga("s", (pivot("a"), retriable("b", "a"))),
    ]
    assert len({saga.fingerprint for saga in sagas}) == len(sagas)


def test_the_fingerprint_does_not_change_with_payload_or_timing() -> None:
    """Payloads, timeouts and retries may be tuned while sagas run."""
    plain = Saga("s", (compensatable("a"),))
    tuned = compensatable("a", timeout_seconds=1.0, retry=Retry(attempts=9), undo_retry=Retry(), payload=lambda _: 1)
    assert Saga("s", (tuned,)).fingerprint == plain.fingerprint


# --- retries and payloads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"attempts": 0}, "at least one attempt, not 0"),
        ({"attempts": 2.0}, "a retry: 'attempts' is a whole number, not a float"),
        ({"attempts": "3"}, "a retry: 'attempts' is a whole number, not a str"),
        ({"first_delay_seconds": None}, "a retry: 'first_delay_seconds' is a number, not a NoneType"),
        ({"max_delay_seconds": "1"}, "a retry: 'max_delay_seconds' is a number, not a str"),
        ({"factor": True}, "a retry: 'factor' is a number, not a bool"),
        ({"factor": 10**400}, "must be finite numbers"),
        ({"jitter": "0.5"}, "a retry: 'jitter' is a number, not a str"),
        ({"first_delay_seconds": -0.1}, "cannot be negative"),
        ({"max_delay_seconds": -1.0}, "cannot be negative"),
        ({"factor": 0.5}, "factor of a retry must be at least 1, not 0.5"),
        ({"jitter": 1.5}, "jitter of a retry lies between 0 and 1, not at 1.5"),
        ({"jitter": -0.5}, "jitter of a retry lies between 0 and 1, not at -0.5"),
    ],
)
def test_a_retry_has_sane_bounds(bounds: dict[str, Any], message: str) -> None:
    """Too few attempts, negative delays, a shrinking factor, too much jitter or what is no number are mistakes."""
    with pytest.raises(DefinitionError, match=message):
        Retry(**bounds)


def test_a_retry_at_its_bounds_is_right() -> None:
    """One attempt, no delay, a constant factor, no or full jitter."""
    assert Retry(attempts=1, first_delay_seconds=0, max_delay_seconds=0, factor=1, jitter=0).delay_seconds(1, 0) == 0
    assert Retry(jitter=1).delay_seconds(1, 0.5) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("retry", "seconds"), [(1, 0.1), (2, 0.2), (3, 0.4), (7, 6.4), (8, 10.0), (64, 10.0), (65, 10.0), (10**9, 10.0)]
)
def test_delays_grow_up_to_a_cap(retry: int, seconds: float) -> None:
    """The n-th retry waits the first delay times the factor to the n-1, at most the cap, however large n is."""
    assert Retry(jitter=0).delay_seconds(retry, 0.9) == pytest.approx(seconds)


def test_jitter_only_shortens_a_delay() -> None:
    """A chance of 0 waits in full; a chance close to 1 waits less by almost the whole jitter, capped delays too."""
    retry = Retry(jitter=0.2)
    assert retry.delay_seconds(2, 0.0) == pytest.approx(0.2)
    assert retry.delay_seconds(2, 0.5) == pytest.approx(0.18)
    assert retry.delay_seconds(100, 0.5) == pytest.approx(9.0)


def test_retriable_steps_and_undos_are_patient() -> None:
    """What must succeed in the end is tried long; what can be undone is tried briefly; a given retry is kept."""
    own = Retry(attempts=3)
    assert retriable("r", "p").do_retry == PERSISTENT
    assert compensatable("a").do_retry == pivot("p").do_retry == Retry()
    assert compensatable("a").undo_retry == PERSISTENT
    assert retriable("r", "p", retry=own).do_retry == compensatable("a", retry=own).do_retry == own


def test_the_default_payload_is_the_input() -> None:
    """A step that says nothing else is given the saga's input as it is."""
    view = View("saga-1", {"order": 7}, {})
    assert whole_input(view) is compensatable("a").payload(view) is view.input
