"""The service that the engine's tests run: a till that counts everything that is done to it."""

from collections.abc import Callable

from actors.handlers import Refused, ServiceTransaction, action, compensation, unconditional_compensation
from actors.messages import Command, Reply
from actors.service import LedgerLimits
from actors.state import Outcome, Verb
from broker import subjects
from broker.codec import unpack
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import Bench, saga_id

CLERK = "clerk"


class Till:
    """`counts`: saga -> {handler: how often it took effect}; `notes` are what handlers wrote before they failed."""

    name = "till"
    tables = ("counts", "notes")

    def __init__(self) -> None:
        self.throws: Callable[[Command], bool] = lambda _: False
        self.delays: Callable[[Command], float] = lambda _: 0.0
        self.rejected_in = "notes"

    def delay_seconds(self, command: Command) -> float:
        return self.delays(command)

    @action
    def take(self, tx: ServiceTransaction, command: Command) -> object:
        """Refuses what is not a positive amount, after it has written."""
        tx.put("notes", command.saga_id, "was here")
        if self.throws(command):
            raise RuntimeError("the drawer is stuck")
        if not isinstance(command.payload, int) or command.payload <= 0:
            raise Refused(f"not an amount: {command.payload!r}")
        count(tx, command.saga_id, "take")
        return {"amount": command.payload}

    @action
    def misspell(self, tx: ServiceTransaction, command: Command) -> object:
        count(tx, command.saga_id, "misspell")
        return tx.get("drawers", command.saga_id)

    @compensation
    def give_back(self, tx: ServiceTransaction, command: Command, recorded: object) -> None:
        if self.throws(command):
            raise RuntimeError("the drawer is stuck")
        if command.payload == "never":
            raise Refused("not today")
        tx.put("notes", command.saga_id, recorded)
        count(tx, command.saga_id, "give_back")

    @unconditional_compensation
    def release(self, tx: ServiceTransaction, command: Command, recorded: object) -> None:
        if self.throws(command):
            raise RuntimeError("the drawer is stuck")
        if command.payload == "never":
            raise Refused("not today")
        tx.put("notes", command.saga_id, ["released", recorded])
        count(tx, command.saga_id, "release")

    @action
    def open_shop(self, tx: ServiceTransaction, command: Command) -> object:
        """Start a saga, and refuse or throw afterwards if that is asked for."""
        tx.start_saga("trip", command.saga_id, command.payload)
        if command.payload == "refuse":
            raise Refused("closed")
        count(tx, command.saga_id, "open_shop")
        return None

    def start_rejected(self, tx: ServiceTransaction, saga: str, reason: str) -> None:
        tx.put(self.rejected_in, saga, reason)
        count(tx, saga, "start_rejected")


def count(tx: ServiceTransaction, saga: str, what: str) -> None:
    counts = tx.get("counts", saga) or {}
    tx.put("counts", saga, counts | {what: counts.get(what, 0) + 1})


class Shop:
    """A node with one till on it, and the peer as the clerk that sends commands and hears the replies."""

    def __init__(self, bench: Bench, node: SimulatedNode, till: Till) -> None:
        self.bench = bench
        self.node = node
        self.till = till

    def command(
        self,
        saga: str,
        handler: str = "take",
        payload: object = 5,
        *,
        verb: Verb = Verb.DO,
        step: str = "step",
        round_: int = 0,
        attempt: int = 1,
        epoch: int = 1,
    ) -> Command:
        return Command(saga, step, verb, handler, round_, attempt, payload, CLERK, epoch)

    def undo(self, saga: str, handler: str = "give_back", payload: object = None, *, attempt: int = 1) -> Command:
        return self.command(saga, handler, payload, verb=Verb.UNDO, attempt=attempt)

    def send(self, *commands: Command) -> list[Reply]:
        """Send commands as one batch; the replies to them, in order, once all have come."""
        before = len(self.bench.peer.replies)
        self.bench.peer.send(subjects.command("till"), *commands)
        self.bench.until(lambda: len(self.bench.peer.replies) >= before + len(commands))
        return self.bench.peer.replies[before:]

    def outcome(self, command: Command) -> tuple[Outcome, object]:
        (reply,) = self.send(command)
        return reply.outcome, reply.value

    def row(self, table: str, saga: str) -> object:
        with self.node.environment.read() as tx:
            stored = tx.get(f"till.{table}", saga.encode())
        return None if stored is None else unpack(stored)

    def counts(self, saga: str) -> object:
        return self.row("counts", saga)


ONE = saga_id("one")


def open_shop(bench: Bench, limits: LedgerLimits | None = None) -> Shop:
    till = Till()
    bench.peer.listen(subjects.replies(CLERK))
    return Shop(bench, bench.services(lambda: [till], limits=limits), till)
