"""A headless Chromium, driven over a pipe: what a page says on its console, and what is really on the screen."""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
WAIT_SECONDS = 120
_COMPLAINTS = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Network.requestWillBeSent"}


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page at a time. `complaints` are errors, remarks on the console, and requests for anything but the page."""

    def __init__(self, to: int, out_of: int) -> None:
        self._to = to
        self._out_of = out_of
        self._heard = b""
        self._number = 0
        self._session = ""
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []

    def start(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, *, width: int = 1200, scheme: str = "light") -> None:
        """Open a file, as wide as a screen is, in the light or in the dark; back when it has been drawn."""
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=media)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read())
        self.call("Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True)
        self.complaints = [json.dumps(e) for e in self._events if e["method"] in _COMPLAINTS and not _is(e, path)]

    def ask(self, expression: str) -> Any:
        """What an expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        os.close(self._to)
        os.close(self._out_of)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def _read(self) -> dict[str, Any]:
        """The next message; they end with a zero byte."""
        while b"\0" not in self._heard:
            ready, _, _ = select.select([self._out_of], [], [], WAIT_SECONDS)
            assert ready, f"the browser has said nothing for {WAIT_SECONDS} s"
            heard = os.read(self._out_of, 1 << 20)
            assert heard, "the browser has ended"
            self._heard += heard
        first, _, self._heard = self._heard.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


def _is(event: dict[str, Any], path: Path) -> bool:
    """Whether it is just the request for the page itself."""
    request = event["params"].get("request")
    return request is not None and request["url"] == path.as_uri()


@contextmanager
def browser(program: str, home: Path) -> Iterator[Browser]:
    """Chromium reads commands from its file descriptor 3 and answers on 4."""
    (its_in, our_out), (our_in, its_out) = os.pipe(), os.pipe()
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--hide-scrollbars", f"--user-data-dir={home}", "--remote-debugging-pipe",
    ]  # fmt: skip
    words = ["bash", "-c", f'exec "$@" 3<&{its_in} 4>&{its_out}', "bash", *command]
    process = subprocess.Popen(
        words,
        pass_fds=(its_in, its_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(its_in)
    os.close(its_out)
    found = Browser(our_out, our_in)
    try:
        found.start()
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_SECONDS)
        found.close()
