"""Where a measurement takes place: an embedded server, two nodes as processes, and a client in this one."""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import nats
from nats.aio.client import Client

from broker.jetstream import JetStream
from broker.jetstream_api import request
from broker.server import EmbeddedServer
from broker.subjects import STREAMS
from scenarios.cluster import RUN_SIM
from scenarios.errors import ClusterError
from scenarios.held_directory import URL_FILE
from scenarios.kept_broker import start_server
from scenarios.scenario import COORDINATOR, SERVICES
from scenarios.serving import Access, is_ready

ROLES = (COORDINATOR, SERVICES)
NATS_SERVER, CLIENT = "nats-server", "client"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
STALL_SECONDS = 60.0  # a measurement in which nothing has moved for so long has failed
POLL_SECONDS = 0.02

Command = Callable[[str, Path], list[str]]
"""The words after `python` that make a process a node of a role, on a directory."""


def real_node(scenario: str) -> Command:
    """A node of the product itself. It logs warnings only."""

    def command(role: str, data: Path) -> list[str]:
        words = [str(RUN_SIM), "serve", role, "--data", str(data), "--with-parent"]
        return [*words, "--scenario", scenario, "--log-level", "WARNING"]

    return command


@dataclass(slots=True)
class Stage:
    """An async context manager; its directory is made for it, and gone with it.

    `prepare(directory)` runs before the nodes start.
    """

    directory: Path
    command: Command
    prepare: Callable[[Path], object] = lambda _: None
    server: EmbeddedServer = field(init=False)
    client: JetStream = field(init=False)
    nodes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _begin(self) -> None:
        (self.directory / "logs").mkdir(mode=0o700, parents=True)
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.server = EmbeddedServer(self.directory / "broker")
        self._stack.push_async_callback(self.server.stop)
        await start_server(self.server)
        self.server.write_url(self.directory / URL_FILE)
        self.client = await Access(self.server.url).connect("sagasim-bench")
        self._stack.push_async_callback(self.client.close)
        self.prepare(self.directory)
        self._stack.push_async_callback(self.stop)
        for role in ROLES:
            await self.start(role)
        for role in ROLES:
            await self.until(partial(self.is_ready, role), f"{role} is ready", START_SECONDS)

    # --- its processes ---------------------------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        nodes = {role: process.pid for role, process in self.nodes.items()}
        return nodes | {NATS_SERVER: self.server.pid, CLIENT: os.getpid()}

    async def start(self, role: str) -> None:
        with self._errors_path(role).open("ab") as errors:
            self.nodes[role] = await asyncio.create_subprocess_exec(
                sys.executable, *self.command(role, self.directory),
                stdin=asyncio.subprocess.PIPE, stdout=errors, stderr=errors, cwd=RUN_SIM.parent,
            )  # fmt: skip

    def is_ready(self, role: str) -> bool:
        return is_ready(self.directory, role, self.nodes[role].pid)

    async def kill(self, role: str) -> None:
        """SIGKILL, and wait for its end."""
        self.nodes[role].kill()
        await self.nodes[role].wait()

    async def stop(self) -> None:
        """Stop the nodes properly; by force if one takes too long."""
        for process in self.nodes.values():
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.terminate()
        for process in self.nodes.values():
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    # --- waiting ---------------------------------------------------------------------------------------------

    async def until(
        self,
        condition: Callable[[], object],
        what: str,
        limit_seconds: float = STALL_SECONDS,
        *,
        poll_seconds: float = POLL_SECONDS,
        moved_at: Callable[[], float] | None = None,
    ) -> None:
        """Wait until the condition holds. Raises ClusterError if a node dies or nothing moves for the limit.

        `moved_at` tells by the loop's time when something moved last; without it the limit counts from now.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not condition():
            self._check_alive()
            if loop.time() - (moved_at() if moved_at is not None else begun) > limit_seconds:
                raise ClusterError(f"waited for {limit_seconds:g} s in vain: {what}")
            await asyncio.sleep(poll_seconds)

    def _check_alive(self) -> None:
        for role, process in self.nodes.items():
            status = process.returncode
            if status is not None:
                lines = self._errors_path(role).read_text(errors="replace").strip().splitlines()
                how = f"signal {-status}" if status < 0 else f"status {status}"
                raise ClusterError(f"{role} died by {how}: {(lines or ['it says nothing'])[-1]}")

    def _errors_path(self, role: str) -> Path:
        return self.directory / "logs" / f"{role}.stderr"

    # --- the broker ------------------------------------------------------------------------------------------

    async def messages(self) -> int:
        """How many messages the streams have ever stored: all that anyone has published."""
        client = await nats.connect(self.server.url)
        try:
            return sum([await _last_sequence(client, spec.name) for spec in STREAMS])
        finally:
            await client.close()


async def _last_sequence(client: Client, stream: str) -> int:
    found = await request(client, f"STREAM.INFO.{stream}")
    return int(found["state"]["last_seq"])
