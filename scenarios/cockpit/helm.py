"""Carries out on a run what a key asks for, and tells it among the faults."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from actors.definition import Saga
from actors.messages import CANCEL, RESUME
from broker.port import Broker, BrokerError
from persistence.errors import StorageError
from scenarios.cluster import Cluster
from scenarios.cockpit.keys import Act, What
from scenarios.inspection import Life
from scenarios.load import Load
from scenarios.operate import ask, words_of_asking
from scenarios.scenario import COORDINATOR, ScenarioError
from scenarios.view import RunView
from scenarios.watching import Stores

PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Hands:
    """What there is to steer once a run is under way."""

    cluster: Cluster
    load: Load
    broker: Broker
    concurrency: int  # the load's own


class Helm:
    """`done` tells for the run's result what keys have done. `attended` is the saga that someone looks at."""

    def __init__(self, view: RunView, stores: Stores, sagas: Mapping[str, Saga]) -> None:
        self.done: list[str] = []
        self.attended = ""
        self._view = view
        self._stores = stores
        self._sagas = sagas
        self._hands: _Hands | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def take(self, cluster: Cluster, load: Load, broker: Broker) -> None:
        """From now on there is something to steer, until `release`."""
        self._hands = _Hands(cluster, load, broker, load.concurrency)

    def release(self) -> None:
        self._hands = None
        for task in self._asking:
            task.cancel()

    def holds_up(self) -> bool:
        """Whether the run waits for someone at the keys: they look at a parked saga, or have slowed the load."""
        is_slowed = self._hands is not None and self._hands.load.concurrency < self._hands.concurrency
        return is_slowed or self.attended in self._view.parked

    def life(self, saga_id: str) -> Life | None:
        return self._stores.life(saga_id)

    def do(self, act: Act, saga_id: str) -> None:
        """Carry out what a key asks for; `saga_id` is the selected saga, or empty."""
        if act.what is What.QUIT:
            self._view.remark("stopping; the run can be resumed")
            os.kill(os.getpid(), signal.SIGINT)  # in every way as Ctrl-C
        elif self._hands is None:
            self._view.remark("there is nothing to steer before the nodes are ready, or after the last order")
        elif act.what in (What.CANCEL, What.RESUME):
            self._operate(self._hands, saga_id, CANCEL if act.what is What.CANCEL else RESUME)
        elif act.what in (What.SLOWER, What.FASTER):
            self._set_load(self._hands, slower=act.what is What.SLOWER)
        else:
            self._harm(self._hands.cluster, act)

    def _harm(self, cluster: Cluster, act: Act) -> None:
        """The cluster is quiet about it: it is no fault of the scenario's."""
        if act.what is What.WIPE:
            words, is_done = "kill broker and delete its store", cluster.wipe_broker(quietly=True)
        elif act.what is What.PAUSE:
            words = f"pause {act.node} for {PAUSE_SECONDS:g} s"
            is_done = cluster.pause(act.node, PAUSE_SECONDS, quietly=True)
        else:
            words, is_done = f"kill {act.node}", cluster.strike(act.node, quietly=True)
        if is_done:
            self._tell(words)
        else:
            self._view.remark(f"cannot {words}: it is down or paused, or not ours")

    def _set_load(self, hands: _Hands, *, slower: bool) -> None:
        """Halve what may be under way at a time, down to nothing, or double it up to what the run began with."""
        before = hands.load.concurrency
        after = before // 2 if slower else min(hands.concurrency, max(1, 2 * before))
        if after == before:
            self._view.remark("the load is held already" if slower else "the load is as it was in the beginning")
            return
        words = f"load: at most {after} orders under way" if after else "load: no new orders"
        self._tell(words)
        with suppress(ScenarioError):  # of the scenario's own code: the load has kept it, and the run ends by it
            hands.load.hold_to(after)

    def _operate(self, hands: _Hands, saga_id: str, action: str) -> None:
        if not saga_id:
            self._view.remark(f"select the saga to {action} first, with the arrows or j and k")
            return
        self._view.remark(f"{action} {saga_id}")
        task = asyncio.create_task(self._ask(hands.broker, saga_id, action))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, broker: Broker, saga_id: str, action: str) -> None:
        try:
            environment = self._stores.environment(COORDINATOR)
            answer = await ask(environment, self._sagas, lambda: nullcontext(broker), saga_id, action)
        except (ScenarioError, StorageError, BrokerError) as error:
            self._view.remark(str(error))
            return
        rest = answer.text.removeprefix(words_of_asking(saga_id, action)).removeprefix(f"{saga_id}: ")
        words = f"{action} {saga_id}: {rest}"
        self._view.remark(words)
        if not answer.is_refused and not answer.is_vain:
            self._tell(words)

    def _tell(self, words: str) -> None:
        self._view.fault(f"by key: {words}")
        self.done.append(f"by key at {self._view.elapsed_seconds():.1f} s: {words}")
