"""A run's processes: the nodes and the embedded broker. Whatever dies, whoever killed it, is started again."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scenarios
from broker.port import BrokerError
from broker.server import EmbeddedServer
from persistence.lockfile import LOCK_FILE
from scenarios.chaos.crash_point import (
    boundary_of,
    down_seconds_of,
    is_internal,
    node_of,
    note_fired,
    read_fired,
    to_text,
)
from scenarios.chaos.faults import Fault
from scenarios.chaos.kill import Kill
from scenarios.errors import ClusterError
from scenarios.kept_broker import RESTART_SECONDS, KeptBroker
from scenarios.members import Member, Zombie, send_signal
from scenarios.places import BROKER, COORDINATOR, SERVICES
from scenarios.serving import FENCED, IN_VAIN, NOT_YET, is_ready, ready_path

RUN_SIM = Path(scenarios.__file__).parent.parent / "run_sim.py"
WIPED_SECONDS = 1.0  # how long a broker is down whose store is deleted
MAX_FAILED_STARTS = 40  # in a row, of a node that may start the next time, before it is given up
TOLD_FAILED_STARTS = 5  # in a row, before it is said why
MAX_DEATHS_AT_START = 5  # in a row, of a node that ends by itself before it is ready
READY_POLL_SECONDS = 0.02
STOP_SECONDS = 15.0


@dataclass(slots=True)
class Cluster:
    """The processes of one run. `tell(text)` hears what happens to them; `arguments` go to each node.

    Of `faults` the cluster itself carries out those that a node has to watch for. `fired` are the ones that have been
    carried out in this directory: equal ones are told apart by their number. `injected` says in words all that was
    done to it. `killed` counts deaths by SIGKILL, by node and the boundary at which it died, "" if at none.
    `url_files` are the files in which nodes find the broker's URL, if not in the run's own.
    """

    data: Path
    arguments: list[str]
    faults: Sequence[Kill | Fault]
    server: EmbeddedServer | None
    tell: Callable[[str], None]
    url_files: Mapping[str, Path] = field(default_factory=dict)
    fired: list[Kill | Fault] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    zombies_fenced: int = 0
    killed: Counter[tuple[str, str]] = field(default_factory=Counter)
    failure: ClusterError | None = None
    _members: dict[str, Member] = field(default_factory=dict)
    _zombies: list[Zombie] = field(default_factory=list)
    _sleeping: dict[int, asyncio.TimerHandle] = field(default_factory=dict)  # by process id
    _broker: KeptBroker | None = None
    _broker_task: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.fired = read_fired(self.data)
        self.injected = [str(fault) for fault in self.fired]

    async def start(self) -> None:
        """Start the nodes, and keep everything running from now on."""
        (self.data / "logs").mkdir(exist_ok=True)
        for role in (COORDINATOR, SERVICES):
            member = Member(role)
            self._members[role] = member
            member.task = asyncio.create_task(self._keep(member))
        if self.server is not None:
            self._broker = KeptBroker(self.server, self._on_broker_end)
            self._broker_task = asyncio.create_task(self._keep_broker(self._broker))

    async def until_ready(self, limit_seconds: float) -> None:
        """Wait until each node has been ready once. Raises ClusterError if one is not within the limit, or never."""
        waiting = list(self._members.values())
        try:
            async with asyncio.timeout(limit_seconds):
                while waiting := [member for member in waiting if not self._has_been_ready(member)]:
                    if self.failure is not None:
                        raise self.failure
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            first = waiting[0]
            words = f"{first.role} was not ready within {limit_seconds:g} s: {self._last_error(first)}"
            raise ClusterError(words) from None

    def up(self, role: str) -> bool:
        """Whether it runs, and is not about to be killed by us. What is paused is up; so is a broker of others."""
        if role == BROKER and self.server is None:
            return True
        return self.pid(role) > 0

    def pid(self, role: str) -> int:
        """The process of a node, or of the embedded broker, that is up; 0 if there is none."""
        if role == BROKER:
            return 0 if self._broker is None else self._broker.pid
        member = self._members.get(role)
        if member is None or member.process is None or not member.runs or member.expected:
            return 0
        return member.process.pid

    def is_paused(self, role: str) -> bool:
        return self.pid(role) in self._sleeping

    def is_ready(self, role: str) -> bool:
        """Whether the present life of a node works."""
        return is_ready(self.data, role, self.pid(role))

    def open_faults(self) -> list[Kill | Fault]:
        """Those that have not been carried out yet."""
        fired = Counter(self.fired)
        left = []
        for fault in self.faults:
            fired[fault] -= 1
            if fired[fault] < 0:
                left.append(fault)
        return left

    def restarts(self, role: str) -> int:
        if role == BROKER:
            return 0 if self._broker is None else self._broker.restarts
        member = self._members.get(role)
        return max(0, member.starts - 1) if member else 0

    # --- what can be done to them ------------------------------------------------------------------------------

    def note(self, fault: Kill | Fault) -> None:
        """Remember a fault over a resume, and say it."""
        self.fired.append(fault)
        with suppress(OSError):  # of a full disk the nodes will tell
            note_fired(self.data, fault)
        self.say(str(fault))

    def say(self, text: str) -> None:
        """Something was done to it."""
        self.injected.append(text)
        self.tell(text)

    def kill(self, kill: Kill) -> None:
        """Carry out a kill of the scenario now: its node must be up."""
        self.note(kill)
        self._kill(kill.node, kill.down_seconds)

    def strike(self, node: str, down_seconds: float = RESTART_SECONDS, *, quietly: bool = False) -> bool:
        """SIGKILL a node, or the embedded broker, now; it is started again. False if there is none that is up."""
        if not self.pid(node):
            return False
        if not quietly:
            self.say(f"kill {node}")
        self._kill(node, down_seconds)
        return True

    def pause(self, node: str, seconds: float, *, quietly: bool = False) -> bool:
        """SIGSTOP a node, or the embedded broker, and SIGCONT after so long. False if none is up, or it is paused."""
        pid = self.pid(node)
        if not pid or pid in self._sleeping:
            return False
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:  # it has just died, which the loop is about to hear
            return False
        self._sleeping[pid] = asyncio.get_running_loop().call_later(seconds, self.wake, pid)
        if not quietly:
            self.say(f"pause {node} for {seconds:g} s")
        return True

    def wake(self, pid: int) -> None:
        """Let a process go on that was paused."""
        if pid in self._sleeping:
            self._forget_sleeper(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def wake_all(self) -> None:
        for pid in list(self._sleeping):
            self.wake(pid)

    def wipe_broker(self, down_seconds: float = WIPED_SECONDS, *, quietly: bool = False) -> bool:
        """SIGKILL the embedded broker, delete its store while it is down, start it again. False if none is up.

        Streams and consumers are made anew by whoever needs them; what was on its way is asked for again.
        """
        if self._broker is None or not self.pid(BROKER):
            return False
        if not quietly:
            self.say("kill broker and delete its store")
        self._broker.kill(down_seconds, wipe=True)
        return True

    def succeed(self, node: str) -> Zombie | None:
        """Start a successor beside a node that is paused; None if none is up. From now on the successor counts.

        The directory's lock does not let it in as long as the old one lives. So the lock's file is removed, which is
        what somebody does who takes the old one for dead: what is left to protect the data is the fence.
        """
        member = self._members[node]
        process = member.process
        if process is None or not self.pid(node) or member.task is None:
            return None
        member.task.cancel()
        (self.data / node / LOCK_FILE).unlink(missing_ok=True)
        zombie = Zombie(node, process, asyncio.create_task(self._bury(node, process, member.fault)))
        self._zombies.append(zombie)
        member.process = None
        member.task = asyncio.create_task(self._keep(member))
        return zombie

    def restart_broker(self, why: str) -> None:
        """End the embedded broker, which is up but no longer does its work, and start it again."""
        assert self._broker is not None
        self.tell(f"broker {why}; it is started again")
        self._broker.kill()

    async def stop(self) -> None:
        """Stop the nodes properly; by force if one takes too long. The broker is left to its owner."""
        self._stopping.set()
        self.wake_all()  # a stopped process would not hear that it is to end
        if self._broker_task is not None:
            self._broker_task.cancel()
        ending: dict[asyncio.Task[Any], Member | Zombie] = {zombie.end: zombie for zombie in self._zombies}
        ending |= {member.task: member for member in self._members.values() if member.task is not None}
        if not ending:
            return
        for kept in ending.values():
            send_signal(kept.process, signal.SIGTERM)
        _, late = await asyncio.wait(ending, timeout=STOP_SECONDS)
        for task in late:
            kept = ending[task]
            self.tell(f"{kept.role} did not stop in {STOP_SECONDS:g} s and was killed")
            send_signal(kept.process, signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    def _kill(self, node: str, down_seconds: float) -> None:
        if node == BROKER:
            assert self._broker is not None
            self._broker.kill(down_seconds)
            return
        member = self._members[node]
        member.expected, member.down_seconds = True, down_seconds
        send_signal(member.process, signal.SIGKILL)

    def _forget_sleeper(self, pid: int) -> None:
        """A process that has ended needs no waking, and its id may be another's by then."""
        if (timer := self._sleeping.pop(pid, None)) is not None:
            timer.cancel()

    # --- nodes -----------------------------------------------------------------------------------------------

    async def _keep(self, member: Member) -> None:
        try:
            while not self._stopping.is_set() and self.failure is None:
                await self._live(member)
        except OSError as error:
            self.failure = ClusterError(f"{member.role} cannot be kept running: {error}")

    async def _live(self, member: Member) -> None:
        """One life of a node, and how long it is down afterwards. Raises OSError."""
        fault = member.fault = self._next_internal(member.role)
        process = await self._spawn(member, fault)
        if self._stopping.is_set():  # while it was being started: nobody has told it yet
            send_signal(process, signal.SIGTERM)
        status = await process.wait()
        self._forget_sleeper(process.pid)
        if self._stopping.is_set():
            return
        self._on_death(member, fault, status)
        if self.failure is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(member.down_seconds):
                    await self._stopping.wait()
            member.down_seconds, member.expected = RESTART_SECONDS, False

    def _has_been_ready(self, member: Member) -> bool:
        """Whether any of its lives has been ready; looks at the present one."""
        if not member.was_ready and member.process is not None:
            member.was_ready = is_ready(self.data, member.role, member.process.pid)
        return member.was_ready

    async def _spawn(self, member: Member, fault: Kill | Fault | None) -> asyncio.subprocess.Process:
        command = [sys.executable, str(RUN_SIM), "serve", member.role, "--data", str(self.data), "--with-parent"]
        command += self.arguments
        if member.role in self.url_files:
            command += ["--url-file", str(self.url_files[member.role])]
        if fault is not None:
            command += ["--kill", to_text(fault)]
        ready_path(self.data, member.role).unlink(missing_ok=True)
        with self._errors_path(member.role).open("ab") as errors:
            member.errors_at = errors.tell()
            member.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors
            )
        member.starts += 1
        return member.process

    def _on_death(self, member: Member, fault: Kill | Fault | None, status: int) -> None:
        """Say what happened, and give up on a node that does not even start."""
        boundary = ""
        if fault is not None and self._has_fired(fault):
            member.down_seconds, member.expected = down_seconds_of(fault), True
            boundary = boundary_of(fault)
        elif not member.expected and status not in (NOT_YET, IN_VAIN):
            how = f"signal {-status}" if status < 0 else f"status {status}"
            why = f": {self._last_error(member)}" if status > 0 else ""
            self.tell(f"{member.role} died by {how}; it is started again{why}")
        self.killed[member.role, boundary] += status == -signal.SIGKILL
        was_ready = member.process is not None and is_ready(self.data, member.role, member.process.pid)
        member.was_ready = member.was_ready or was_ready
        member.failed_starts = 0 if was_ready or member.expected else member.failed_starts + 1
        if status == NOT_YET and member.failed_starts == TOLD_FAILED_STARTS:
            self.tell(f"{member.role} cannot start yet: {self._last_error(member)}")
        if status == IN_VAIN or member.failed_starts >= _most_failed_starts(status):
            cannot = "cannot go on" if was_ready else "does not start"
            self.failure = ClusterError(f"{member.role} {cannot}: {self._last_error(member)}")

    def _has_fired(self, fault: Kill | Fault) -> bool:
        """Whether a node has carried out a fault that it was to watch for, which nobody has heard of yet."""
        if read_fired(self.data).count(fault) <= self.fired.count(fault):
            return False
        self.fired.append(fault)
        self.say(str(fault))
        return True

    async def _bury(self, role: str, process: asyncio.subprocess.Process, fault: Kill | Fault | None) -> bool:
        """Wait for the end of a zombie. True if it has found itself fenced; it may come to a crash before."""
        status = await process.wait()
        self._forget_sleeper(process.pid)
        boundary = boundary_of(fault) if fault is not None and self._has_fired(fault) else ""
        self.killed[role, boundary] += status == -signal.SIGKILL
        if status != FENCED:
            return False
        self.zombies_fenced += 1
        self.tell(f"{role} that was overtaken found itself fenced, and stopped")
        return True

    def _next_internal(self, role: str) -> Kill | Fault | None:
        """The next fault that a node has to watch for itself, in the order of the plan."""
        return next((fault for fault in self.open_faults() if node_of(fault) == role and is_internal(fault)), None)

    def _errors_path(self, role: str) -> Path:
        return self.data / "logs" / f"{role}.stderr"

    def _last_error(self, member: Member) -> str:
        path = self._errors_path(member.role)
        written = path.read_bytes()[member.errors_at :] if path.exists() else b""
        lines = written.decode(errors="replace").strip().splitlines()
        return f"{lines[-1].removeprefix('sagasim: ')} (see {path})" if lines else "it says nothing"

    # --- the broker ------------------------------------------------------------------------------------------

    async def _keep_broker(self, broker: KeptBroker) -> None:
        try:
            await broker.keep()
        except (BrokerError, OSError) as error:
            self.failure = ClusterError(f"the broker cannot be started again: {error}")

    def _on_broker_end(self, pid: int, status: int | None) -> None:
        self._forget_sleeper(pid)
        self.killed[BROKER, ""] += status in (None, -signal.SIGKILL)
        if status is not None:
            self.tell(f"broker died by {'signal' if status < 0 else 'status'} {abs(status)}; it is started again")


def _most_failed_starts(status: int) -> int:
    """What ends by itself will do so again; what is killed, or finds its lock or its broker taken, may start yet."""
    return MAX_DEATHS_AT_START if status > 0 and status != NOT_YET else MAX_FAILED_STARTS
