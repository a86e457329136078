"""The keys of a terminal, one by one and unseen, as long as they are ours to read; the terminal is left as it was."""

import asyncio
import os
import termios
import tty
from collections.abc import Callable
from typing import Any

from scenarios.cockpit.keys import key_of_rest, keys_in

REST_SECONDS = 0.05  # how long the rest of a sequence may take to come
CHUNK_BYTES = 1024


class Keyboard:
    """`hear` is given each key by its name. Ctrl-C, Ctrl-Z and the like stay signals.

    A process in the background that reads its terminal is stopped: keys are taken only in the foreground.
    """

    def __init__(self, descriptor: int, hear: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._rest = ""
        self._timer: asyncio.TimerHandle | None = None
        self._found: list[Any] | None = None  # the terminal's modes before ours
        self.reads = False

    def keep(self) -> None:
        """Take the keys if they are ours; to be called now and then, since that may change at any time."""
        try:
            if not self._is_ours():
                self._unread()
                return
            modes = termios.tcgetattr(self._descriptor)
            if modes[tty.LFLAG] & (termios.ICANON | termios.ECHO):  # at first, and after a shell has had it
                self._found = modes
                tty.setcbreak(self._descriptor, termios.TCSANOW)
        except (OSError, termios.error):
            self._unread()
            return
        if not self.reads:
            self._loop.add_reader(self._descriptor, self._read)
            self.reads = True

    def release(self) -> None:
        """Read no more, and leave the terminal as it was found."""
        self._unread()
        found, self._found = self._found, None
        if found is not None and self._is_ours():
            try:
                termios.tcsetattr(self._descriptor, termios.TCSANOW, found)
            except termios.error:
                return  # there is no terminal any more

    def _is_ours(self) -> bool:
        try:
            return os.isatty(self._descriptor) and os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return False

    def _unread(self) -> None:
        if self.reads:
            self._loop.remove_reader(self._descriptor)
            self.reads = False
        self._forget_rest()

    def _forget_rest(self) -> None:
        self._rest = ""
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        if not self._is_ours():
            self._unread()
            return
        try:
            data = os.read(self._descriptor, CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._unread()
            return
        keys, rest = keys_in(self._rest + data.decode("utf-8", "replace"))
        self._forget_rest()
        self._rest = rest
        if rest:
            self._timer = self._loop.call_later(REST_SECONDS, self._end_rest)
        for key in keys:
            self._hear(key)

    def _end_rest(self) -> None:
        keys = key_of_rest(self._rest)
        self._forget_rest()
        for key in keys:
            self._hear(key)
