"""Which methods of a service are its handlers; a mistake in one is found when the service is made."""

import re
from collections.abc import Callable, Iterator
from types import FunctionType

import pytest

from actors.handlers import HandlersError, action, compensation, handlers_of
from tests.actors.tills import Till


def test_a_service_without_actions_is_a_mistake() -> None:
    """A class with no method marked as an action is refused by name."""

    class Nothing:
        name = "nothing"
        tables = ()

    with pytest.raises(HandlersError, match="'nothing' \\(Nothing\\) has no method marked @action"):
        handlers_of(Nothing())


async def _async(self: object, transaction: object, command: object) -> None: ...


def _yielding(self: object, transaction: object, command: object) -> Iterator[object]:
    yield self, transaction, command


def _short(self: object, transaction: object) -> None: ...


def _long(self: object, transaction: object, command: object, recorded: object) -> None: ...


@pytest.mark.parametrize(
    ("mark", "method", "words"),
    [
        (action, _async, "is async or a generator"),
        (action, _yielding, "is async or a generator"),
        (action, _short, "must take (self, transaction, command)"),
        (action, _long, "must take (self, transaction, command)"),
        (compensation, _short, "must take (self, transaction, command, recorded)"),
    ],
)
def test_a_handler_that_cannot_be_called_as_one_is_refused(
    mark: Callable[..., Callable[..., object]], method: Callable[..., object], words: str
) -> None:
    """What would fault at each command, or do nothing at all, is found when the service is made."""
    service = type("Odd", (Till,), {"odd": mark(FunctionType(method.__code__, {}))})()
    with pytest.raises(HandlersError, match=re.escape(f"service 'till': odd (Odd) {words}")):
        handlers_of(service)
