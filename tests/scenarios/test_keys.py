"""Keys: what a terminal sends becomes acts, and the terminal is left as it was."""

import asyncio
import os
import pty
import select
import termios
import tty
from collections.abc import Callable, Iterator

import pytest

from scenarios.cockpit import keyboard as keyboard_module
from scenarios.cockpit.keyboard import Keyboard
from scenarios.cockpit.keys import ACTS, DOWN, ENTER, ESCAPE, UP, Act, What, help_words, key_of_rest, keys_in
from scenarios.scenario import BROKER, COORDINATOR


@pytest.mark.parametrize(
    ("text", "keys", "rest"),
    [
        ("", [], ""),
        ("jk", ["j", "k"], ""),
        ("\x1b[A\x1b[B", [UP, DOWN], ""),
        ("\x1bOA\x1bOB", [UP, DOWN], ""),
        ("\r\n", [ENTER, ENTER], ""),
        ("j\x1b", ["j"], "\x1b"),
        ("\x1b[", [], "\x1b["),
        ("\x1b[1;5", [], "\x1b[1;5"),
        ("\x1b\x1b[A", [ESCAPE, UP], ""),
        ("\x1b[1;5B", ["\x1b[1;5B"], ""),
        ("\x1b[5~", ["\x1b[5~"], ""),
        ("\x1bc", ["\x1bc"], ""),
        ("é\x00", ["é", "\x00"], ""),
    ],
)
def test_keys_in(text: str, keys: list[str], rest: str) -> None:
    """Letters, arrows in both of their forms, escape; what may go on is left over, what means nothing stays whole."""
    assert keys_in(text) == (keys, rest)


def test_arrows_cut_anywhere_are_arrows() -> None:
    """However a line cuts them: the B of a cut arrow must pause no broker."""
    text = "\x1b[B\x1bOA\x1b[B"
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            keys, rest = [], ""
            for part in (text[:first], text[first:second], text[second:]):
                found, rest = keys_in(rest + part)
                keys += found
            assert (keys, rest) == ([DOWN, UP, DOWN], "")


def test_what_follows_nothing() -> None:
    """Escape that nothing has followed is the key; the beginning of a sequence is nothing."""
    assert key_of_rest("\x1b") == [ESCAPE]
    assert key_of_rest("\x1b[") == key_of_rest("") == []


def test_each_act_has_a_key_and_each_key_is_helped() -> None:
    """Nothing that can be done is without a key; the help names every key but second names of one."""
    assert {act.what for act in ACTS.values()} == set(What)
    assert ACTS["c"] == Act(What.KILL, COORDINATOR)
    assert ACTS["B"] == Act(What.PAUSE, BROKER)
    lines = [help_words(is_open=is_open, arrows="", enter="") for is_open in (False, True)]
    helped = {letter for line in lines for keys, _ in line if keys != "esc" for letter in keys}
    assert helped == set(ACTS) - {UP, DOWN, ENTER, ESCAPE, "j", "k", "="}


# --- on a terminal ---------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Both ends of one: the person's and the program's. It is no process's own, so the foreground is said."""
    person, program = pty.openpty()
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp())
    yield person, program
    os.close(person)
    os.close(program)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_keys_are_heard_one_by_one_and_unseen(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a return, and without an echo; arrows that come in pieces are arrows; then all is as it was."""
    person, program = terminal
    before = termios.tcgetattr(program)

    async def use() -> list[str]:
        heard: list[str] = []
        keyboard = Keyboard(program, heard.append)
        keyboard.keep()
        os.write(person, b"c")
        await until(lambda: heard == ["c"])
        monkeypatch.setattr(keyboard_module, "REST_SECONDS", 600.0)  # it takes its time to come
        os.write(person, b"\x1b")
        await until(lambda: keyboard._rest == "\x1b")
        os.write(person, b"[Bq")
        await until(lambda: heard == ["c", DOWN, "q"])
        monkeypatch.setattr(keyboard_module, "REST_SECONDS", 0.01)
        os.write(person, b"\x1b")
        await until(lambda: heard[3:] == [ESCAPE])
        keyboard.release()
        os.write(person, b"s\n")
        keyboard.release()
        return heard

    heard = asyncio.run(use())
    assert heard == ["c", DOWN, "q", ESCAPE]
    assert termios.tcgetattr(program) == before
    echo = b""
    while len(echo) < 3:
        assert select.select([person], [], [], 5)[0]
        echo += os.read(person, 100)
    assert echo == b"s\r\n"  # of what came after, and of nothing else


def test_a_terminal_that_a_shell_has_had_is_taken_again(terminal: tuple[int, int]) -> None:
    """Who was stopped finds the shell's modes: keys are taken anew, and those modes are left behind."""
    person, program = terminal

    async def use() -> None:
        heard: list[str] = []
        keyboard = Keyboard(program, heard.append)
        keyboard.keep()
        shell = termios.tcgetattr(program)
        shell[tty.LFLAG] |= termios.ICANON | termios.ECHO | termios.TOSTOP
        termios.tcsetattr(program, termios.TCSANOW, shell)
        keyboard.keep()
        os.write(person, b"j")
        await until(lambda: heard == ["j"])
        keyboard.release()

    asyncio.run(use())
    assert termios.tcgetattr(program)[tty.LFLAG] & termios.TOSTOP


def test_in_the_background_nothing_is_read(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """To read, or to change the terminal, would stop a process that is not in the foreground."""
    _, program = terminal
    before = termios.tcgetattr(program)
    ours = os.getpgrp()

    async def use() -> None:
        keyboard = Keyboard(program, pytest.fail)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: ours + 1)
        keyboard.keep()
        assert not keyboard.reads
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: ours)
        keyboard.keep()
        assert keyboard.reads
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: ours + 1)
        keyboard.keep()
        assert not keyboard.reads
        keyboard.release()
        assert termios.tcgetattr(program) != before  # whoever is in the foreground has its own
        monkeypatch.setattr(os, "tcgetpgrp", lambda _: ours)

    asyncio.run(use())


def test_without_a_terminal_there_are_no_keys() -> None:
    """A pipe on standard input is nobody's keyboard, and is not read."""

    async def use() -> None:
        reading, writing = os.pipe()
        os.write(writing, b"q")
        keyboard = Keyboard(reading, pytest.fail)
        keyboard.keep()
        assert not keyboard.reads
        keyboard.release()
        assert os.read(reading, 10) == b"q"
        os.close(reading)
        os.close(writing)

    asyncio.run(use())
