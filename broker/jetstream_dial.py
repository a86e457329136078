"""Opens one connection to one NATS server and says in one line why it cannot."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from nats import errors as nats_errors
from nats.aio.client import Client

from broker.port import BrokerError

logger = logging.getLogger("sagasim.broker")

_NEVER_SECONDS: Final = 10**9
_CREDENTIALS_MARKS: Final = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


@dataclass(frozen=True, slots=True)
class Server:
    """Where one server is and what opens it; `str()` of it holds no secret and may be logged."""

    host: str
    port: int
    must_be_tls: bool
    user: str | None
    password: str | None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """How this node presents itself, to whichever server of the cluster."""

    name: str
    credentials: Path | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout_seconds: float = 2.0


class _Client(Client):
    """A client that sends its credentials over TLS or not at all when the URL says tls://."""

    must_be_tls = False

    def _connect_command(self) -> bytes:
        # nats-py goes by what the server announces, whatever the URL's scheme is.
        if self.must_be_tls and not self._server_info.get("tls_required"):
            raise nats_errors.Error("the server does not ask for TLS and the URL says tls://")
        return super()._connect_command()


def parse_servers(url: str) -> list[Server]:
    """Parse `nats://[user:password@]host[:port]`, or several with commas between. Raises BrokerError."""
    return [_parse_server(part.strip()) for part in url.split(",")]


def _parse_server(url: str) -> Server:
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port or 4222
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0:
        # The text itself is not shown: it may hold a password.
        raise BrokerError("the broker's URL must look like nats://[user:password@]host[:port] or tls://...")
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Server(parts.hostname, port, parts.scheme == "tls", user, password)


def check_credentials(path: Path) -> None:
    """Raise BrokerError unless the file is a NATS credentials file: nats-py would read for ever."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BrokerError(f"the credentials file {path} cannot be read: {error.strerror}") from None
    if not all(mark in text for mark in _CREDENTIALS_MARKS):
        raise BrokerError(f"{path} is not a NATS credentials file (a JWT and a seed between BEGIN and END)")


def tls_context(tls_ca: Path | None, tls_certificate: Path | None, tls_key: Path | None) -> ssl.SSLContext | None:
    """The TLS settings of the files, None if there are none. Raises BrokerError."""
    if tls_ca is None and tls_certificate is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls_ca)
        if tls_certificate is not None:
            context.load_cert_chain(tls_certificate, tls_key)
    except (OSError, ValueError) as error:
        raise BrokerError(f"the TLS files cannot be used: {error}") from None
    return context


async def dial(server: Server, login: Login, on_lost: Callable[[], None]) -> Client:
    """Connect once. `on_lost` is called when the connection ends. Raises BrokerError with the reason.

    nats-py's own reconnection is not used: it gives up for good on several errors of the server, and it
    keeps a buffer of its own. Whoever dialled dials again, with a client that remembers nothing.
    """
    client = _Client()
    client.must_be_tls = server.must_be_tls
    watcher = _Watcher(client, on_lost)
    try:
        async with asyncio.timeout(login.connect_timeout_seconds):
            await client.connect(
                f"nats://{_bracketed(server.host)}:{server.port}",
                name=login.name,
                user=server.user if server.password is not None else None,
                password=server.password,
                token=server.user if server.password is None else None,
                user_credentials=login.credentials,
                tls=login.tls,
                tls_hostname=server.host,
                connect_timeout=_NEVER_SECONDS,
                ping_interval=_NEVER_SECONDS,
                flush_timeout=None,
                error_cb=watcher.error,
                disconnected_cb=watcher.disconnected,
                closed_cb=watcher.closed,
            )
    except Exception as error:
        await retire(client)
        reason = _explain(error, login.connect_timeout_seconds)
        raise BrokerError(f"cannot connect to {server}: {reason}") from None
    except BaseException:
        await retire(client)
        raise
    watcher.connected = True
    return client


class _Watcher:
    """The callbacks of one client. They report its end once, and let nothing be printed."""

    def __init__(self, client: Client, on_lost: Callable[[], None]) -> None:
        self._client = client
        self._on_lost = on_lost
        self._lost = False
        self.connected = False

    async def error(self, error: Exception) -> None:
        # While connecting, raising is what ends nats-py's own attempts after the first.
        if not self.connected:
            raise error
        if isinstance(error, nats_errors.UnexpectedEOF):
            self._lose()
        elif isinstance(error, nats_errors.Error):
            # Such as a subject that this user may not publish to; the connection stays up.
            logger.error("the broker reports: %s", error)

    async def disconnected(self) -> None:
        was_lost_before = self._lost
        self._lose()
        # Holds back nats-py's reconnection; retiring the client cancels this.
        if not was_lost_before and not self._client.is_closed:
            await asyncio.Event().wait()

    async def closed(self) -> None:
        self._lose()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            if self.connected:
                self._on_lost()


async def retire(client: Client) -> None:
    """Close a client in whatever state it is, and free its socket even if the server no longer reads."""
    transport = getattr(getattr(client, "_transport", None), "_io_writer", None)
    await _quietly(client.close())
    if transport is not None:
        transport.transport.abort()


async def _quietly(action: Awaitable[None]) -> None:
    """A connection that is being given up may fail in any way; there is nobody left to tell."""
    try:
        async with asyncio.timeout(1.0):
            await action
    except Exception:
        return


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _explain(error: Exception, timeout_seconds: float) -> str:
    text = str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_seconds:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or text}"
    if isinstance(error, OSError):
        return error.strerror or text or type(error).__name__
    if "authorization violation" in text.lower():
        return "the server refused the credentials"
    # A line that is too long, or not the greeting, or a greeting that cannot be read.
    if isinstance(error, ValueError) or "INFO" in text or "json parse" in text:
        return "what answers there is not a NATS server"
    return text.removeprefix("nats: ") or type(error).__name__
