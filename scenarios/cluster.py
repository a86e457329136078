"""A run's processes: the nodes and the embedded broker. Whatever dies, whoever killed it, is started again."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import scenarios
from broker.port import BrokerError
from broker.server import EmbeddedServer
from scenarios.faults import FIRED_FILE, from_text, to_text
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill
from scenarios.serving import IN_VAIN, NOT_YET, is_ready, ready_path

RUN_SIM = Path(scenarios.__file__).parent.parent / "run_sim.py"
RESTART_SECONDS = 0.3
MAX_FAILED_STARTS = 40  # in a row, of a node that may start the next time, before it is given up
TOLD_FAILED_STARTS = 5  # in a row, before it is said why
MAX_DEATHS_AT_START = 5  # in a row, of a node that ends by itself before it is ready
MAX_SERVER_STARTS = 5  # in a row, before the broker is given up
READY_POLL_SECONDS = 0.02
STOP_SECONDS = 15.0


class ClusterError(Exception):
    """A node cannot be kept running; one clear line."""


@dataclass(slots=True)
class _Member:
    """One node: its process, and how often it has been started."""

    role: str
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    failed_starts: int = 0
    down_seconds: float = RESTART_SECONDS
    expected: bool = False  # its death is one of ours
    was_ready: bool = False  # in any of its lives
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Cluster:
    """The processes of one run. `tell(text)` hears what happens to them; `arguments` go to each node.

    `fired` are the kills that have been carried out in this directory. Equal ones are told apart by their number.
    """

    data: Path
    arguments: list[str]
    kills: list[Kill]
    server: EmbeddedServer | None
    tell: Callable[[str], None]
    fired: list[Kill] = field(default_factory=list)
    failure: ClusterError | None = None
    _members: dict[str, _Member] = field(default_factory=dict)
    _server_task: asyncio.Task[None] | None = None
    _server_down_seconds: float = RESTART_SECONDS
    _server_expected: bool = False
    _server_restarts: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.fired = read_fired(self.data)

    async def start(self) -> None:
        """Start the nodes, and keep everything running from now on."""
        (self.data / "logs").mkdir(exist_ok=True)
        for role in (COORDINATOR, SERVICES):
            member = _Member(role)
            self._members[role] = member
            member.task = asyncio.create_task(self._keep(member))
        if self.server is not None:
            self._server_task = asyncio.create_task(self._keep_server(self.server))

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
            role = waiting[0].role
            raise ClusterError(f"{role} was not ready within {limit_seconds:g} s: {self._last_error(role)}") from None

    def up(self, role: str) -> bool:
        """Whether it runs, and is not about to be killed by us."""
        if role == BROKER:
            return not self._server_expected
        member = self._members.get(role)
        if member is None or member.process is None or member.expected:
            return False
        return member.process.returncode is None

    def open_kills(self) -> list[Kill]:
        """The kills that have not been carried out yet."""
        fired = Counter(self.fired)
        left = []
        for kill in self.kills:
            fired[kill] -= 1
            if fired[kill] < 0:
                left.append(kill)
        return left

    def restarts(self, role: str) -> int:
        if role == BROKER:
            return self._server_restarts
        member = self._members.get(role)
        return max(0, member.starts - 1) if member else 0

    def kill(self, kill: Kill) -> None:
        """SIGKILL a node now, and start it again after the kill's `down_seconds`."""
        self._note(kill)
        if kill.node == BROKER:
            assert self.server is not None
            self._server_expected, self._server_down_seconds = True, kill.down_seconds
            self.server.kill()
            return
        member = self._members[kill.node]
        member.expected, member.down_seconds = True, kill.down_seconds
        if member.process is not None:
            with suppress(ProcessLookupError):
                member.process.kill()

    def restart_broker(self, why: str) -> None:
        """End the embedded broker, which is up but no longer does its work, and start it again."""
        assert self.server is not None
        self.tell(f"broker {why}; it is started again")
        self._server_expected = True
        self.server.kill()

    async def stop(self) -> None:
        """Stop the nodes properly; by force if one takes too long. The broker is left to its owner."""
        self._stopping = True
        if self._server_task is not None:
            self._server_task.cancel()
        for member in self._members.values():
            if member.process is not None and member.process.returncode is None:
                with suppress(ProcessLookupError):
                    member.process.terminate()
        tasks = [member.task for member in self._members.values() if member.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
        for member in self._members.values():
            if member.task in late:
                self.tell(f"{member.role} did not stop in {STOP_SECONDS:g} s and was killed")
                if member.process is not None:
                    member.process.kill()
        if late:
            await asyncio.wait(late)

    # --- nodes -----------------------------------------------------------------------------------------------

    async def _keep(self, member: _Member) -> None:
        while not self._stopping:
            kill = self._next_internal(member.role)
            try:
                await self._spawn(member, kill)
            except OSError as error:
                self.failure = ClusterError(f"{member.role} cannot be started: {error}")
                return
            assert member.process is not None
            status = await member.process.wait()
            if self._stopping:
                return
            self._on_death(member, kill, status)
            if self.failure is not None:
                return
            await asyncio.sleep(member.down_seconds)
            member.down_seconds, member.expected = RESTART_SECONDS, False

    def _has_been_ready(self, member: _Member) -> bool:
        """Whether any of its lives has been ready; looks at the present one."""
        if not member.was_ready and member.process is not None:
            member.was_ready = is_ready(self.data, member.role, member.process.pid)
        return member.was_ready

    async def _spawn(self, member: _Member, kill: Kill | None) -> None:
        command = [sys.executable, str(RUN_SIM), "serve", member.role, "--data", str(self.data), "--with-parent"]
        command += self.arguments
        if kill is not None:
            command += ["--kill", to_text(kill)]
        ready_path(self.data, member.role).unlink(missing_ok=True)
        with (self.data / "logs" / f"{member.role}.stderr").open("ab") as errors:
            member.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors
            )
        member.starts += 1

    def _on_death(self, member: _Member, kill: Kill | None, status: int) -> None:
        """Say what happened, and give up on a node that does not even start."""
        if kill is not None and read_fired(self.data).count(kill) > self.fired.count(kill):
            self.fired.append(kill)
            member.down_seconds, member.expected = kill.down_seconds, True
            self.tell(f"{kill}")
        elif not member.expected and status not in (NOT_YET, IN_VAIN):
            how = f"signal {-status}" if status < 0 else f"status {status}"
            self.tell(f"{member.role} died by {how}; it is started again")
        was_ready = member.process is not None and is_ready(self.data, member.role, member.process.pid)
        member.was_ready = member.was_ready or was_ready
        member.failed_starts = 0 if was_ready or member.expected else member.failed_starts + 1
        if status == NOT_YET and member.failed_starts == TOLD_FAILED_STARTS:
            self.tell(f"{member.role} cannot start yet: {self._last_error(member.role)}")
        if status == IN_VAIN or member.failed_starts >= _most_failed_starts(status):
            cannot = "cannot go on" if was_ready else "does not start"
            self.failure = ClusterError(f"{member.role} {cannot}: {self._last_error(member.role)}")

    def _next_internal(self, role: str) -> Kill | None:
        """The next kill that a node has to watch for itself, in the order of the scenario."""
        return next((kill for kill in self.open_kills() if kill.node == role and kill.is_internal), None)

    def _last_error(self, role: str) -> str:
        path = self.data / "logs" / f"{role}.stderr"
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return f"{lines[-1].removeprefix('sagasim: ')} (see {path})" if lines else "it says nothing"

    # --- the broker ------------------------------------------------------------------------------------------

    async def _keep_server(self, server: EmbeddedServer) -> None:
        while True:
            status = await server.wait()
            if not self._server_expected:
                self.tell(f"broker died by {'signal' if status < 0 else 'status'} {abs(status)}; it is started again")
            await asyncio.sleep(self._server_down_seconds)
            try:
                await start_server(server)
            except (BrokerError, OSError) as error:
                self.failure = ClusterError(f"the broker cannot be started again: {error}")
                return
            self._server_restarts += 1
            self._server_expected, self._server_down_seconds = False, RESTART_SECONDS

    def _note(self, kill: Kill) -> None:
        """Remember a kill over a resume, and say it."""
        self.fired.append(kill)
        with suppress(OSError), (self.data / FIRED_FILE).open("a") as fired:  # of a full disk the nodes will tell
            fired.write(to_text(kill) + "\n")
        self.tell(str(kill))


def _most_failed_starts(status: int) -> int:
    """What ends by itself will do so again; what is killed, or finds its lock or its broker taken, may start yet."""
    return MAX_DEATHS_AT_START if status > 0 and status != NOT_YET else MAX_FAILED_STARTS


async def start_server(server: EmbeddedServer) -> None:
    """Start the broker, again if it dies meanwhile: it may be killed then, too. Raises BrokerError or OSError."""
    for left in reversed(range(MAX_SERVER_STARTS)):
        try:
            await server.start()
            return
        except (BrokerError, OSError):
            if not left:
                raise
            await asyncio.sleep(RESTART_SECONDS)


def read_fired(data: Path) -> list[Kill]:
    """The kills that have been carried out in this directory so far."""
    path = data / FIRED_FILE
    if not path.exists():
        return []
    fired = []
    for line in path.read_text(errors="replace").splitlines():
        with suppress(ValueError, TypeError):  # the last line may be cut short by a crash of the machine
            fired.append(from_text(line))
    return fired
