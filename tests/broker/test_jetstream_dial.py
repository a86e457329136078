"""Who cannot be reached, or must not be used, is said so in one clear line."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from broker.jetstream import JetStream
from broker.jetstream_dial import Server, parse_servers
from broker.port import BrokerError
from tests.broker.labs import run
from tests.broker.served import connected, running


async def refuse(url: str, **options: Any) -> str:
    """The one line with which a connection is refused."""
    with pytest.raises(BrokerError) as caught:
        await JetStream.connect(url, name="test", connect_timeout_seconds=1.0, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "secret" not in text
    return text


# Connecting


def test_the_server_is_known_once_connected(binary: Path, tmp_path: Path) -> None:
    """After connecting, version and largest payload are those of the server."""

    async def main() -> None:
        async with running(tmp_path, binary) as server, connected(server) as jetstream:
            assert jetstream.connected
            assert jetstream.server_version.startswith("2.")
            assert jetstream.max_payload_bytes == 1024 * 1024

    run(main())


def test_a_refused_connection_is_one_clear_line(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing listens, connecting fails at once, in one line, and logs nothing beside it."""
    text = run(refuse("nats://user:secret@127.0.0.1:9"))
    assert text == "cannot connect to 127.0.0.1:9: nothing listens there (connection refused)"
    assert caplog.records == []


def test_wrong_credentials_are_one_clear_line(binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong password, or none, is named as such and never shown."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            place = server.url.rpartition("@")[2]
            for login in ("sagasim:secret@", "", "secret@"):
                text = await refuse(f"nats://{login}{place}")
                assert text == f"cannot connect to {place}: the server refused the credentials"

    run(main())
    assert caplog.records == []


def test_tls_is_never_silently_left_out(binary: Path, tmp_path: Path) -> None:
    """A tls:// URL and a server without TLS: no connection, and no credentials in clear text."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            assert "does not ask for TLS" in await refuse(server.url.replace("nats://", "tls://"))

    run(main())


@pytest.mark.parametrize("greeting", [b"220 mail ready\r\n", b"\x00" * 100_000, b"INFO {oops\r\n", b""])
def test_something_else_than_nats_is_said_so(greeting: bytes) -> None:
    """A port where another kind of server answers is an error that says so, whatever it sends."""

    async def main() -> None:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(greeting)
            writer.close()

        async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            assert "is not a NATS server" in await refuse(f"nats://127.0.0.1:{port}")

    run(main())


def test_a_silent_server_times_out() -> None:
    """A port that accepts and says nothing is given up after the connect timeout."""

    async def main() -> None:
        done = asyncio.Event()

        async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await done.wait()
            writer.close()

        async with await asyncio.start_server(wait, "127.0.0.1", 0) as other:
            port = other.sockets[0].getsockname()[1]
            assert "no answer within 1 s" in await refuse(f"nats://127.0.0.1:{port}")
            done.set()

    run(main())


def test_a_server_without_jetstream_is_said_so(binary: Path, tmp_path: Path) -> None:
    """A NATS server that runs without JetStream cannot be used, and the error names JetStream."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            config = tmp_path / "broker" / "nats-server.conf"
            port = server.url.rpartition(":")[2]
            plain = config.read_text().partition("jetstream {")[0]
            await server.stop()
            config.write_text(plain)
            process = await asyncio.create_subprocess_exec(
                binary, "-c", config, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                while not await listens(int(port)):
                    await asyncio.sleep(0)
                assert "JetStream is not enabled" in await refuse(server.url)
            finally:
                process.kill()
                await process.wait()

    run(main())


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize(
    "url", ["", "http://host", "nats://", "nats://host:port", "nats://secret@:4222", "nats://h:99999"]
)
def test_a_malformed_url_is_refused(url: str) -> None:
    """What is not a NATS URL is refused with the form it should have, without being shown."""
    assert "must look like nats://" in run(refuse(url))


def test_urls_are_parsed() -> None:
    """Several servers, default port, scheme and quoted credentials are all understood; str() hides the secret."""
    servers = parse_servers("nats://u:p%40ss@a:1, tls://token@b,c:3,nats://[::1]:5")
    assert servers == [
        Server("a", 1, False, "u", "p@ss"),
        Server("b", 4222, True, "token", None),
        Server("c", 3, False, None, None),
        Server("::1", 5, False, None, None),
    ]
    assert str(servers[0]) == "a:1"


@pytest.mark.parametrize("text", [None, "", "not credentials\n"])
def test_a_bad_credentials_file_is_refused(tmp_path: Path, text: str | None) -> None:
    """A credentials file that is missing or malformed is named; it does not hang the client."""
    path = tmp_path / "node.creds"
    if text is not None:
        path.write_text(text)
    assert str(path) in run(refuse("nats://127.0.0.1:9", credentials=path))


def test_bad_tls_files_are_refused(tmp_path: Path) -> None:
    """A TLS file that cannot be used is an error before anything is dialled."""
    assert "TLS files" in run(refuse("tls://127.0.0.1:9", tls_ca=tmp_path / "missing.pem"))


def test_the_next_server_of_the_list_is_tried(binary: Path, tmp_path: Path) -> None:
    """Of several servers in the URL, the first that answers is used."""

    async def main() -> None:
        async with running(tmp_path, binary) as server:
            jetstream = await JetStream.connect(f"nats://127.0.0.1:9,{server.url}", name="test")
            assert jetstream.connected
            await jetstream.close()

    run(main())


# Streams and consumers
