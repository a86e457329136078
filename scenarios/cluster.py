"""A run's processes: the nodes and the embedded broker. Whatever dies, whoever killed it, is started again."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import scenarios
from broker.port import BrokerError
from broker.server import EmbeddedServer
from scenarios.faults import FIRED_FILE, from_text, to_text
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill

RUN_SIM = Path(scenarios.__file__).parent.parent / "run_sim.py"
RESTART_SECONDS = 0.3
NOT_YET = (
    75  # how a node says that another try may succeed: the lock is held by what is just dying, the broker is away
)
MAX_FAILED_STARTS = 40  # in a row, before such a node is given up
MAX_SERVER_STARTS = 5  # in a row, before the broker is given up
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
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Cluster:
    """The processes of one run. `tell(text)` hears what happens to them; `arguments` go to each node."""

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

    def up(self, role: str) -> bool:
        if role == BROKER:
            return not self._server_expected
        member = self._members.get(role)
        return member is not None and member.process is not None and member.process.returncode is None

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
            await self._spawn(member, kill)
            assert member.process is not None
            status = await member.process.wait()
            if self._stopping:
                return
            self._on_death(member, kill, status)
            if self.failure is not None:
                return
            await asyncio.sleep(member.down_seconds)
            member.down_seconds, member.expected = RESTART_SECONDS, False

    async def _spawn(self, member: _Member, kill: Kill | None) -> None:
        command = [sys.executable, str(RUN_SIM), "serve", member.role, "--data", str(self.data), "--with-parent"]
        command += self.arguments
        if kill is not None:
            command += ["--kill", to_text(kill)]
        with (self.data / "logs" / f"{member.role}.stderr").open("ab") as errors:
            member.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors
            )
        member.starts += 1

    def _on_death(self, member: _Member, kill: Kill | None, status: int) -> None:
        """Say what happened, and give up on a node that does not even start."""
        if status in (2, NOT_YET):
            member.failed_starts += 1
            if status == 2 or member.failed_starts >= MAX_FAILED_STARTS:
                self.failure = ClusterError(f"{member.role} does not start: {self._last_error(member.role)}")
            return
        member.failed_starts = 0
        if kill is not None and kill in read_fired(self.data):
            self.fired.append(kill)
            member.down_seconds = kill.down_seconds
            self.tell(f"{kill}")
        elif not member.expected:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            self.tell(f"{member.role} died by {how}; it is started again")

    def _next_internal(self, role: str) -> Kill | None:
        """The next kill that a node has to watch for itself, in the order of the scenario."""
        for kill in self.kills:
            if kill.node == role and kill.is_internal and kill not in self.fired:
                return kill
        return None

    def _last_error(self, role: str) -> str:
        lines = (self.data / "logs" / f"{role}.stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("sagasim: ") if lines else "it says nothing"

    # --- the broker ------------------------------------------------------------------------------------------

    async def _keep_server(self, server: EmbeddedServer) -> None:
        while True:
            status = await server.wait()
            if not self._server_expected:
                self.tell(f"broker died by {'signal' if status < 0 else 'status'} {abs(status)}; it is started again")
            await asyncio.sleep(self._server_down_seconds)
            try:
                await start_server(server)
            except BrokerError as error:
                self.failure = ClusterError(str(error))
                return
            self._server_restarts += 1
            self._server_expected, self._server_down_seconds = False, RESTART_SECONDS

    def _note(self, kill: Kill) -> None:
        """Remember a kill over a resume, and say it."""
        self.fired.append(kill)
        with (self.data / FIRED_FILE).open("a") as fired:
            fired.write(to_text(kill) + "\n")
        self.tell(str(kill))


async def start_server(server: EmbeddedServer) -> None:
    """Start the broker, again if it dies while it starts: it may be killed then, too. Raises BrokerError."""
    for left in reversed(range(MAX_SERVER_STARTS)):
        try:
            await server.start()
            return
        except BrokerError:
            if not left:
                raise
            await asyncio.sleep(RESTART_SECONDS)


def read_fired(data: Path) -> list[Kill]:
    """The kills that have been carried out in this directory so far."""
    path = data / FIRED_FILE
    if not path.exists():
        return []
    fired = []
    for line in path.read_text().splitlines():
        with suppress(ValueError, TypeError):  # the last line may be cut short by a crash of the machine
            fired.append(from_text(line))
    return fired
