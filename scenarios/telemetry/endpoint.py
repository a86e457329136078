"""An HTTP endpoint of one page, on the node's own loop. Whoever comes has little time, little room, and company."""

import asyncio
import os
from collections.abc import Callable
from http import HTTPStatus

from scenarios.scenario import ScenarioError

PATH = "/metrics"
PATIENCE_SECONDS = 5.0  # for a client to say what it wants and to take the answer
MAX_HEAD_BYTES = 8192
MAX_CLIENTS = 16  # at a time; the next one is turned away unheard

Page = Callable[[], str]
"""Makes the page that is served, whenever one is asked for."""


class Endpoint:
    """Serves `GET /metrics`. Use `bind`, then `start`; nobody is answered in between."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type
        self._page: Page | None = None
        self._server: asyncio.Server | None = None
        self._clients = 0

    @classmethod
    async def bind(cls, host: str, port: int, content_type: str) -> "Endpoint":
        """Take the port; 0 takes any that is free. Raises ScenarioError if it cannot be had."""
        endpoint = cls(content_type)
        try:
            endpoint._server = await asyncio.start_server(
                endpoint._hear, host, port, limit=MAX_HEAD_BYTES, start_serving=False
            )
        except (OSError, UnicodeError) as error:
            raise ScenarioError(f"--metrics {host}:{port}: {_reason(error)}") from None
        return endpoint

    async def start(self, page: Page) -> str:
        """Answer from now on. Returns the page's address."""
        assert self._server is not None
        self._page = page
        await self._server.start_serving()
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: one request, one answer. Whatever it does, it is gone after a while."""
        if self._clients >= MAX_CLIENTS:
            writer.transport.abort()
            return
        self._clients += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(self._answer(await _head(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError):
            pass  # too slow, or gone already: it is the client's loss
        finally:
            self._clients -= 1
            writer.transport.abort()

    def _answer(self, head: str | None) -> bytes:
        if head is None:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        words = head.partition("\r\n")[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if target.partition("?")[0] != PATH:
            return _response(HTTPStatus.NOT_FOUND, f"The figures are at {PATH}.\n")
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, more="Allow: GET, HEAD\r\n")
        assert self._page is not None
        found = _response(HTTPStatus.OK, self._page(), self._content_type)
        return found if method == "GET" else found[: found.index(b"\r\n\r\n") + 4]


def _reason(error: OSError | UnicodeError) -> str:
    """In few words: asyncio's own name the address again."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return getattr(error, "strerror", None) or str(error)


async def _head(reader: asyncio.StreamReader) -> str | None:
    """A request's line and headers; None if they are too long. What follows them is of no interest."""
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        return None


def _response(
    status: HTTPStatus, text: str = "", content_type: str = "text/plain; charset=utf-8", more: str = ""
) -> bytes:
    body = (text or f"{status.phrase}\n").encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body
