"""The given/expect language, told with the shop's order saga; and the order saga, told in that language."""

import pytest

from actors.definition import Kind, Retry, Saga, Step
from scenarios.given import Story, StoryError, given
from scenarios.shop.sagas import ORDER, ORDER_SEQUENTIAL

ITEMS = {"desk-lamp": 1}
ADDRESS = {"country": "DE"}
INPUT = {"items": ITEMS, "amount": 4900, "currency": "EUR", "card": "card-1", "address": ADDRESS}
BEFORE = ("open", "reserve", "authorize", "prepare")
AFTER = {"commit_stock": "inventory", "capture": "payment", "dispatch": "shipping"}

TWICE = Retry(attempts=2)
TRIP = Saga(
    "trip",
    (
        Step("hotel", "hotels", "book", compensation="cancel", retry=TWICE, undo_retry=TWICE),
        Step("pay", "bank", "charge", after=("hotel",), kind=Kind.PIVOT, retry=TWICE),
        Step("mail", "post", "send", after=("pay",), kind=Kind.RETRIABLE, retry=TWICE),
    ),
)


def order() -> Story:
    return given(ORDER).started_with(INPUT)


def prepared() -> Story:
    """An order of which everything before the pivot is done."""
    story = order()
    for step in BEFORE:
        story.expect_command(step).when_done()
    return story


def paid() -> Story:
    """A trip that is past its pivot."""
    story = given(TRIP).started_with("Ada").expect_command("hotel").when_done()
    return story.expect_command("pay", to="bank").when_done("receipt")


# --- the order saga ----------------------------------------------------------------------------------------------


def test_a_good_order_is_completed() -> None:
    """Four steps in parallel, then the pivot, then three in parallel, each with the part of the order it needs."""
    story = (
        order()
        .expect_command("open", to="order", payload={})
        .when_done()
        .expect_command("reserve", to="inventory", payload={"items": ITEMS})
        .when_done(ITEMS)
        .expect_command("authorize", to="payment", payload={"amount": 4900, "currency": "EUR", "card": "card-1"})
        .when_done({"code": "A1"})
        .expect_command("prepare", to="shipping", payload={"address": ADDRESS})
        .expect_nothing_more()
        .when_done()
        .expect_command("confirm", to="order")
        .expect_nothing_more()
        .when_done()
    )
    for step, service in AFTER.items():
        story.expect_running().expect_command(step, to=service).when_done()
    story.expect_completed()


def test_a_refused_order_is_undone_with_the_reason() -> None:
    """What was done is undone, what is in flight is interrupted and undone too, and each undo says why."""
    reason = {"reason": "authorize refused: card declined"}
    story = order()
    for step in ("open", "reserve"):
        story.expect_command(step).when_done()
    story.expect_command("prepare").expect_command("authorize").when_refused("card declined")
    story.expect_undo("open", to="order", payload=reason).when_done()
    story.expect_undo("reserve", to="inventory", payload=reason).when_done()
    story.expect_undo("prepare", to="shipping", payload=reason).expect_nothing_more().expect_running().when_done()
    story.expect_cancelled("card declined")


def test_one_step_after_another_is_undone_backwards() -> None:
    """In the sequential saga each step waits for the one before it, on the way there and on the way back."""
    story = given(ORDER_SEQUENTIAL).started_with(INPUT)
    for step in ("open", "reserve", "authorize"):
        story.expect_command(step).expect_nothing_more().when_done()
    story.expect_command("prepare").when_refused("address not deliverable")
    for step in ("authorize", "reserve", "open"):
        story.expect_undo(step).expect_nothing_more().when_done()
    story.expect_cancelled("address not deliverable")


def test_a_fault_and_a_missing_answer_are_tried_again() -> None:
    """Neither is a refusal: the same command goes out again, and one answer to it is enough."""
    story = order().expect_command("reserve").when_faulted("KeyError")
    story.expect_command("reserve", to="inventory", payload={"items": ITEMS}).when_timed_out()
    story.expect_command("reserve").when_done().expect_running()


def test_a_step_that_never_answers_is_undone_too() -> None:
    """Unknown is not refused: who was asked and never answered may have done it."""
    story = order()
    for step in ("open", "authorize", "prepare"):
        story.expect_command(step).when_done()
    story.expect_command("reserve").when_never_answered()
    for step in BEFORE:
        story.expect_undo(step).when_done()
    story.expect_cancelled("reserve was not answered in 8 attempts")


def test_an_unknown_pivot_is_settled_by_its_own_service() -> None:
    """Nothing before it is undone until its service has said whether it was done: kept, and the order goes on."""
    story = prepared().expect_command("confirm").when_never_answered()
    story.expect_undo("confirm", to="order").expect_nothing_more().when_kept()
    for step in AFTER:
        story.expect_command(step).when_done()
    story.expect_completed()


def test_an_unknown_pivot_that_was_never_done_turns_back() -> None:
    """Tombstoned: the way back is free."""
    story = prepared().expect_command("confirm").when_never_answered()
    story.expect_undo("confirm").when_done("tombstoned")
    for step in BEFORE:
        story.expect_undo(step).when_done()
    story.expect_cancelled()


def test_a_cancel_counts_before_the_pivot_and_not_after() -> None:
    """Before, all is undone for that reason; after, it changes nothing."""
    early = order()
    for step in reversed(BEFORE):
        early.expect_command(step)
    early.when_done().when_cancelled("changed their mind")
    for step in BEFORE:
        early.expect_undo(step, payload={"reason": "changed their mind"}).when_done()
    early.expect_cancelled("changed their mind")
    late = prepared().expect_command("confirm").when_done().when_cancelled()
    for step in AFTER:
        late.expect_command(step).when_done()
    late.expect_completed()


def test_past_the_pivot_a_saga_parks_rather_than_turn_back() -> None:
    """Out of attempts or refused: a person has to look; resumed, the same step is asked again."""
    story = paid().expect_command("mail", to="post").when_never_answered()
    story.expect_parked("mail was not answered in 2 attempts").when_resumed()
    story.expect_command("mail").when_refused("no such address").expect_parked("no such address").when_resumed()
    story.expect_command("mail").when_done().expect_completed()


def test_an_undo_that_is_refused_parks() -> None:
    """It is never dropped."""
    story = given(TRIP).started_with("Ada").expect_command("hotel").when_done()
    story.expect_command("pay").when_refused("no money").expect_undo("hotel").when_refused("too late")
    story.expect_parked("undo of hotel refused: too late")


def test_a_late_answer_changes_nothing() -> None:
    """`on` turns back to a command that was answered already: the second answer is a duplicate."""
    story = order().expect_command("open").when_done().expect_command("reserve").when_done()
    story.on("open").when_done().expect_running()
    story.expect_command("authorize").expect_command("prepare").expect_nothing_more()


# --- the language: what a failing story says ------------------------------------------------------------------


def said(error: pytest.ExceptionInfo[StoryError]) -> str:
    return str(error.value)


def test_it_says_what_was_expected_and_what_the_saga_did() -> None:
    """The expectation, what was found instead, and the story so far, a line an event."""
    with pytest.raises(StoryError) as error:
        given(TRIP).started_with("Ada").expect_command("hotel").when_refused("full").expect_command("pay")
    assert said(error) == (
        "saga 'trip'\n"
        "expected: pay\n"
        "but it:   sent nothing more\n"
        "what happened:\n"
        "  it was started\n"
        "    it is started\n"
        "    it sent hotel to hotels (book) with 'Ada'\n"
        "  hotel was refused: full\n"
        "    it is failing: hotel refused: full\n"
        "    it is compensated: hotel refused: full"
    )


def test_the_wrong_service_or_payload_fails() -> None:
    """Both are shown, expected and found."""
    with pytest.raises(StoryError, match=r"expected: hotel to motels\nbut it: +sent hotel to hotels \(book\)"):
        given(TRIP).started_with("Ada").expect_command("hotel", to="motels")
    with pytest.raises(StoryError, match=r"expected: hotel with 'Eve'\nbut it: +sent hotel .* with 'Ada'"):
        given(TRIP).started_with("Ada").expect_command("hotel", payload="Eve")


def test_an_undo_is_not_taken_for_a_command() -> None:
    """`expect_command` and `expect_undo` are about different things."""
    with pytest.raises(StoryError, match="expected: undo hotel"):
        given(TRIP).started_with("Ada").expect_undo("hotel")


def test_a_command_is_expected_once() -> None:
    """A second one must have been sent a second time."""
    with pytest.raises(StoryError, match="sent nothing more"):
        given(TRIP).started_with("Ada").expect_command("hotel").expect_command("hotel")


def test_an_end_that_has_not_come_fails() -> None:
    """The saga's standing is told, with what it waits for; another end, another reason, and a surprise fail too."""
    with pytest.raises(StoryError, match=r"expected: completed\nbut it: +is running, and waits for mail to post"):
        paid().expect_command("mail").expect_completed()
    with pytest.raises(StoryError, match="expected: parked"):
        paid().expect_command("mail").expect_parked()
    with pytest.raises(StoryError, match=r"expected: cancelled\nbut it: +is completed"):
        paid().expect_command("mail").when_done().expect_cancelled()
    with pytest.raises(StoryError, match=r"expected: under way\nbut it: +is completed"):
        paid().expect_command("mail").when_done().expect_running()
    with pytest.raises(
        StoryError, match=r"cancelled for 'the moon'\nbut it: +gave as its reason 'hotel refused: no'"
    ):
        given(TRIP).started_with("Ada").expect_command("hotel").when_refused().expect_cancelled("the moon")
    with pytest.raises(StoryError, match="no further command"):
        paid().expect_nothing_more()


def test_a_line_that_makes_no_sense_fails() -> None:
    """A step that is none, an answer to nothing, a command never sent, an answer that cannot be."""
    with pytest.raises(StoryError, match="no step 'hostel'; it has hotel, pay, mail"):
        given(TRIP).started_with("Ada").expect_command("hostel")
    with pytest.raises(StoryError, match="expect a command first"):
        given(TRIP).started_with("Ada").when_done()
    with pytest.raises(StoryError, match="a command for mail"):
        given(TRIP).started_with("Ada").on("mail")
    with pytest.raises(StoryError, match="told of what cannot"):
        given(TRIP).started_with("Ada").expect_command("hotel").when_kept()


def test_a_long_story_is_told_from_its_end() -> None:
    """An error stays readable after a hundred attempts."""
    story = paid().expect_command("mail")
    for _ in range(60):
        story.when_never_answered().expect_parked().when_resumed().expect_command("mail")
    with pytest.raises(StoryError) as error:
        story.expect_completed()
    assert len(said(error).splitlines()) < 80
