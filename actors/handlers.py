"""What the author of a service writes with: `action`, `compensation`, `Refused`, `ServiceTransaction`.

    class Inventory:
        name = "inventory"
        tables = ("stock",)

        @action
        def reserve(self, transaction, command):
            ...  # reads and writes `transaction`; returns what its compensation needs, or raises Refused

        @compensation
        def release(self, transaction, command, recorded):
            ...  # `recorded` is what `reserve` returned

A handler runs inside the LMDB transaction that also holds its ledger entry, on the committer's thread or the loop's.
It touches nothing but its transaction, and may be run again if that transaction has to be: all it changes is rolled
back then. Any exception but `Refused` is a fault: rolled back too, and the command will be tried again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from typing import Any, Protocol, TypeVar

from actors import outbox
from actors.ids import is_id
from actors.messages import Command, StartSaga
from broker.codec import pack, unpack
from broker.subjects import check_token
from persistence.transaction import Transaction

Handler = TypeVar("Handler", bound=Callable[..., object])
_ROLE = "_saga_role"


class Refused(Exception):  # noqa: N818 - a business answer, not an error
    """The business says no. Definite: nothing was changed, and the same command gets the same answer again."""


class HandlersError(TypeError):
    """A service class cannot be right; the message names it and what is wrong."""


class ServiceHandlers(Protocol):
    """A user's service. Optional members are looked up by name:

    `prepare(transaction)` runs at each start of the service, before its first command;
    `delay_seconds(command) -> float` puts a command off before it is executed;
    `start_rejected(transaction, saga_id, reason)` hears that a saga which it started will never run.
    """

    # Properties, so that a class with plain attributes of narrower types fits too.
    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> tuple[str, ...]: ...


def action(handler: Handler) -> Handler:
    """Mark a method as an action that sagas may call: `(self, transaction, command) -> result`."""
    setattr(handler, _ROLE, "action")
    return handler


def compensation(handler: Handler) -> Handler:
    """Mark a method as a compensation: `(self, transaction, command, recorded) -> None`."""
    setattr(handler, _ROLE, "compensation")
    return handler


def unconditional_compensation(handler: Handler) -> Handler:
    """Mark a compensation that also runs, with `recorded` None, when its action never was done.

    For what was taken before the saga began and is to be released with it, such as an order's PENDING. Its action
    must not refuse: a refused step has changed nothing, and is not undone.
    """
    setattr(handler, _ROLE, "unconditional compensation")
    return handler


@dataclass(frozen=True, slots=True)
class HandlerTable:
    """The handlers of one service by name. `unconditional` names the compensations that run even if not done."""

    actions: dict[str, Callable[[Any, Command], object]]
    compensations: dict[str, Callable[[Any, Command, object], object]]
    unconditional: frozenset[str]


def handlers_of(service: ServiceHandlers) -> HandlerTable:
    """Find the marked methods. Raises HandlersError if there is no action, or one that cannot be called."""
    table = HandlerTable({}, {}, frozenset())
    unconditional = set()
    for name in dir(type(service)):
        role = getattr(getattr(type(service), name), _ROLE, None)
        if role is None:
            continue
        handler = getattr(service, name)
        if role == "action":
            _check_call(service, name, handler, "transaction, command")
            table.actions[name] = handler
        else:
            _check_call(service, name, handler, "transaction, command, recorded")
            table.compensations[name] = handler
            if role != "compensation":
                unconditional.add(name)
    if not table.actions:
        raise HandlersError(f"service {service.name!r} ({type(service).__name__}) has no method marked @action")
    return HandlerTable(table.actions, table.compensations, frozenset(unconditional))


def _check_call(service: ServiceHandlers, name: str, handler: Callable[..., object], parameters: str) -> None:
    what = f"service {service.name!r}: {name} ({type(service).__name__})"
    if iscoroutinefunction(handler) or isgeneratorfunction(handler) or isasyncgenfunction(handler):
        raise HandlersError(f"{what} is async or a generator; a handler is a plain method")
    try:
        signature(handler).bind(*parameters.split(", "))
    except TypeError:
        raise HandlersError(f"{what} must take (self, {parameters})") from None


class ServiceTransaction:
    """The service's own tables, inside the transaction of one command. Keys are str, values what msgpack can hold."""

    __slots__ = ("_service", "_transaction", "now", "started")

    def __init__(self, transaction: Transaction, service: str, now: float) -> None:
        self._transaction = transaction
        self._service = service
        self.now = now
        """The wall clock when the command was taken up, in seconds since 1970."""
        self.started: list[StartSaga] = []

    def get(self, table: str, key: str) -> Any:
        """The value, or None."""
        stored = self._transaction.get(f"{self._service}.{table}", key.encode())
        return None if stored is None else unpack(stored)

    def put(self, table: str, key: str, value: object) -> None:
        self._transaction.put(f"{self._service}.{table}", key.encode(), pack(value))

    def delete(self, table: str, key: str) -> bool:
        return self._transaction.delete(f"{self._service}.{table}", key.encode())

    def scan(self, table: str, start: str = "", stop: str | None = None) -> Iterator[tuple[str, Any]]:
        """Keys and values with start <= key < stop, in order."""
        end = None if stop is None else stop.encode()
        for key, stored in self._transaction.scan(f"{self._service}.{table}", start.encode(), end):
            yield key.decode(), unpack(stored)

    def start_saga(self, definition: str, saga_id: str, input_: object) -> None:
        """Start a saga once this transaction is committed: it goes to the outbox, and is sent until answered.

        Raises ValueError if it could never be sent: a bad name or id, or an input that no message can hold.
        """
        check_token("definition", definition)
        if not is_id(saga_id):
            raise ValueError(f"{saga_id!r} is no saga id: it must begin with its time of creation")
        start = StartSaga(saga_id, definition, input_, self._service)
        outbox.write(self._transaction, start)
        self.started.append(start)
