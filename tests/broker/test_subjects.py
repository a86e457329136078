"""Names: every subject has its stream, every consumer hears its subject, and no token slips through."""

import pytest

from broker import subjects
from broker.port import Consumer


@pytest.mark.parametrize(
    ("subject", "expected", "stream"),
    [
        (subjects.start("order"), "saga.start.order", "SAGA_START"),
        (subjects.command("stock"), "saga.command.stock", "SAGA_COMMAND"),
        (subjects.reply("main"), "saga.reply.main", "SAGA_REPLY"),
        (subjects.control("main"), "saga.control.main", "SAGA_CONTROL"),
        (subjects.event("order"), "saga.event.order", "SAGA_EVENT"),
        (subjects.dead("stock"), "saga.dead.stock", "SAGA_DEAD"),
    ],
)
def test_each_subject_has_its_stream(subject: str, expected: str, stream: str) -> None:
    """Each kind of message has its own subject, held by its own stream."""
    assert subject == expected
    assert subjects.stream_of(subject).name == stream


@pytest.mark.parametrize(
    ("consumer", "filter_subject"),
    [
        (subjects.starts(), "saga.start.*"),
        (subjects.commands("stock"), subjects.command("stock")),
        (subjects.replies("main"), subjects.reply("main")),
        (subjects.controls("main"), subjects.control("main")),
        (subjects.events("dashboard"), "saga.event.*"),
        (subjects.dead_letters("dashboard"), "saga.dead.*"),
    ],
)
def test_each_consumer_hears_its_subject(consumer: Consumer, filter_subject: str) -> None:
    """Each consumer is durable under a name that JetStream takes, and hears the subject it is for."""
    assert consumer.filter_subject == filter_subject
    assert "." not in consumer.durable
    assert subjects.stream_of(consumer.filter_subject)


def test_a_passing_listener_is_forgotten() -> None:
    """A dashboard's consumer may be made to vanish by itself and to skip the past."""
    consumer = subjects.events("dashboard", inactive_seconds=60.0, only_new=True)
    assert (consumer.inactive_seconds, consumer.only_new) == (60.0, True)


def test_who_does_the_work_takes_over_what_its_last_life_has_left() -> None:
    """A node's own consumers are for one life of it at a time; those that look on share nothing with anybody."""
    own = (subjects.starts(), subjects.commands("a"), subjects.replies("a"), subjects.controls("a"))
    assert all(consumer.takes_over for consumer in own)
    assert not any(consumer.takes_over for consumer in (subjects.events("a"), subjects.dead_letters("a")))


@pytest.mark.parametrize("value", ["a", "A-z_09", "x" * 64])
def test_tokens_are_taken(value: str) -> None:
    """Letters, digits, underscore and hyphen, 1 to 64 of them, make a token."""
    assert subjects.check_token("service", value) == value


@pytest.mark.parametrize("value", ["", "a.b", "*", ">", "a b", "a\r\nPUB x", "é", "x" * 65, "a\n"])
def test_other_tokens_are_refused(value: str) -> None:
    """Whatever could change a subject's meaning, or the protocol's, is refused by name."""
    with pytest.raises(ValueError, match="must be 1 to 64"):
        subjects.command(value)


@pytest.mark.parametrize("subject", ["", "saga", "saga.command", "saga.command.", "saga.other.x", "saga.command.a.b"])
def test_unknown_subjects_have_no_stream(subject: str) -> None:
    """A subject outside of the table is an error, not a guess."""
    with pytest.raises(ValueError, match="no stream holds"):
        subjects.stream_of(subject)


def test_only_looking_on_is_bounded() -> None:
    """Work queues never drop what is not acknowledged; what people look at is bounded in age and size."""
    for spec in subjects.STREAMS:
        assert (spec.retention == "limits") == (spec.max_bytes is not None) == (spec.max_age_seconds is not None)
