"""The dashboard: whatever the run and the size of the terminal, it fits and tells what matters."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from typing import cast

import pytest
from rich.console import Console

from actors.dispatch import Loop
from actors.messages import Lifecycle
from broker.port import Broker
from scenarios import dashboard, library
from scenarios.dashboard import render, share, show
from scenarios.glyphs import ASCII, UNICODE, Glyphs
from scenarios.load import Journey, Load
from scenarios.panels import RATE_SECONDS, SAMPLE, Panel, books_panel, current_rate
from scenarios.scenario import Fate, Request
from scenarios.view import RunView

STEPS = ["open", "reserve", "authorize", "prepare", "confirm", "commit_stock", "capture", "dispatch"]
BEGUN_AT = 100.0
SIZES = [(160, 50), (120, 30), (80, 24), (79, 12), (40, 10), (20, 5), (7, 3), (1, 1), (0, 0)]


class StoppedClock:
    """A loop on which nothing ever happens."""

    def time(self) -> float:
        return BEGUN_AT

    def call_soon(self, *_: object) -> None: ...

    def call_later(self, *_: object) -> None: ...


class DeafBroker:
    """A broker that nothing is ever sent to."""

    max_payload_bytes = 1 << 20


def load_of(orders: int, seconds: list[float]) -> Load:
    """A load whose first journeys have ended, the last one now; each took so long."""
    load = Load(
        library.find("mixed"), cast(Loop, StoppedClock()), cast(Broker, DeafBroker()), seed=7, orders=orders,
        concurrency=50, epoch_seconds=0.0, saga=None, look=lambda _: "",
    )  # fmt: skip
    for i, took in enumerate(seconds):
        end = BEGUN_AT + 10 * (i + 1) / len(seconds)
        load.ended.append(
            Journey(i, f"saga-{i}", Request({}, Fate.EITHER), end - took, 0.0, ended_at=end, end="completed")
        )
    load.ends = Counter({"completed": len(seconds)})
    return load


def empty() -> RunView:
    return RunView("mixed", "Three orders in ten fail.", "real", 7, 200, "data", steps={"order": STEPS})


def mid_run() -> RunView:
    view = empty()
    view.begun_at = time.monotonic() - 10.0
    view.load = load_of(200, [0.045] * 100)
    view.sagas_by_phase = Counter({"running": 40, "compensating": 2})
    view.nodes_up = {"coordinator": True, "services": True, "broker": False}
    view.restarts = {"coordinator": 2, "services": 0, "broker": 0}
    view.books = {
        "order": ["3 CANCELLED, 57 CONFIRMED, 42 PENDING"],
        "inventory": [f"sku-{i}: 90 available + 4 reserved + 6 sold = 100" for i in range(12)],
        "payment": ["100.00 captured + 5.00 voided + 20.00 held = 125.00 EUR"],
        "shipping": ["3 cancelled, 57 dispatched"],
    }
    view.counters = {"transitions": 1600, "retries": 3, "coordinator_redelivered": 5}
    view.fault("kill coordinator at commit.after, authorize of saga 3")
    view.latest_states = {saga_id(i): states("done", "done", "doing", "done") for i in range(42)}
    for i in range(42, 50):
        view.heard(Lifecycle(saga_id(i), "order", "started", 1000.0, ""))
        view.heard(Lifecycle(saga_id(i), "order", "completed", 1000.044, ""))
    return view


def with_parked() -> RunView:
    view = mid_run()
    view.parked = {saga_id(40): "capture refused: the card has expired"}
    view.latest_states[saga_id(40)] = states(*["done"] * 5, "done", "do_refused", "done")
    view.stalled = {saga_id(41): "its next event is 3.2 s overdue"}
    return view


def at_the_end() -> RunView:
    view = mid_run()
    view.load = load_of(200, [0.045] * 200)
    view.load.ended_at = BEGUN_AT + 10
    view.sagas_by_phase, view.latest_states = Counter(), {}
    return view


VIEWS = [empty, mid_run, with_parked, at_the_end]


def saga_id(number: int) -> str:
    return f"01a2050f91df-s7-{number:07d}"


def states(*statuses: str) -> list[tuple[str, str]]:
    return list(zip(STEPS, [*statuses, *["idle"] * (8 - len(statuses))], strict=True))


def screen(view: RunView, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[str]:
    return [str(line) for line in render(view, width, height, glyphs).renderables]


# --- what fits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("make", VIEWS)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_fits(make: Callable[[], RunView], width: int, height: int, glyphs: Glyphs) -> None:
    """At any size, whatever the run, nothing is wider or higher than the terminal."""
    frame = render(make(), width, height, glyphs)
    output = StringIO()
    Console(file=output, width=max(1, width), force_terminal=False).print(frame)
    assert len(frame.renderables) <= height
    assert len(output.getvalue().splitlines()) <= height
    assert all(line.cell_len <= width for line in frame.renderables)  # type: ignore[union-attr]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_tells_what_matters(width: int, height: int) -> None:
    """In the middle of a run the screen tells its name, progress, speed, nodes, books, faults and sagas."""
    text = "\n".join(screen(mid_run(), width, height))
    facts = [
        "mixed",
        "Three orders in ten fail.",
        "seed 7",
        "real",
        "100/200",
        "50 %",
        "40 running",
        "2 compensating",
    ]
    facts += ["100 completed", "10/s mean", "p50 45 ms", "coordinator up, 2 restarts", "broker DOWN"]
    facts += ["1,600 transitions", "5 redelivered", "57 CONFIRMED", "= 125.00 EUR", "57 dispatched", "= 100"]
    facts += ["kill coordinator at commit.after", "●●▸●···· authorize", "●●●●●●●● completed in 44 ms"]
    assert [fact for fact in facts if fact not in text] == []


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_parked_on_top(width: int, height: int) -> None:
    """Parked sagas stand on top with the reason, stalled ones next, and both are counted."""
    lines = screen(with_parked(), width, height)
    heading = next(i for i, line in enumerate(lines) if "── sagas" in line)
    assert f"{saga_id(40)} ●●●●●●!● parked: capture refused: the card has" in lines[heading + 1]
    assert f"{saga_id(41)} ●●▸●···· stalled: authorize; its next event" in lines[heading + 2]
    assert "1 parked · 1 stalled" in lines[2]


def test_many_parked() -> None:
    """However many are parked, some of the others can be seen."""
    view = with_parked()
    view.parked = {f"01a2050f0000-s7-{i:07d}": "the carrier is on strike" for i in range(500)}
    lines = screen(view, 80, 24)
    assert sum("parked: the carrier" in line for line in lines) >= 3
    assert any(saga_id(0) in line for line in lines)
    assert "500 parked" in lines[2]


def test_before_the_load() -> None:
    """While the nodes start, the screen says so, and has the lines that it will have."""
    lines = screen(empty(), 80, 24)
    assert "0/200" in lines[1]
    assert "starting" in lines[1]
    assert len(screen(mid_run(), 80, 7)) == len(screen(empty(), 80, 7)) == 7


def test_ascii() -> None:
    """A terminal without UTF-8 is sent nothing but ASCII, whatever people have written."""
    view = with_parked()
    view.story = "Größer als alles — ein Märchen"
    text = "\n".join(screen(view, 80, 24, ASCII))
    assert text.isascii()
    assert "######!# parked" in text


def test_hostile_text() -> None:
    """A reason moves no cursor, opens no line and is no markup."""
    view = with_parked()
    view.parked[saga_id(40)] = "\x1b[2J\nnew\rline [red]x[/red] \u202e"
    lines = screen(view, 160, 50)
    assert all(line.isprintable() for line in lines)
    assert any("[red]x[/red]" in line for line in lines)


# --- what is given out -----------------------------------------------------------------------------------------


def panel(least: int, good: int, wants: int) -> Panel:
    return Panel("panel", lambda _: [], least, good, wants)


def test_share_by_priority() -> None:
    """Without room for all, the lowest panel gets its least first, then what is good, then all it wants."""
    panels = [panel(2, 4, 4), panel(3, 5, 20)]
    assert share(panels, 3) == [2, 0]
    assert share(panels, 4) == [0, 3]
    assert share(panels, 7) == [2, 3]
    assert share(panels, 10) == [3, 5]
    assert share(panels, 20) == [4, 14]


def test_books_of_all() -> None:
    """With little room each service still shows its first line, and how many are hidden."""
    lines = [str(line) for line in books_panel(mid_run(), UNICODE, 78).draw(5)]
    assert [line.split()[0] for line in lines] == ["order", "inventory", "sku-1:", "payment", "shipping"]
    assert lines[2].endswith("+10 more")


def test_rate_of_now() -> None:
    """The rate counts the last seconds, also when more ended in them than are looked at."""
    ends = load_of(100, [0.1] * 100).ended
    assert current_rate(ends, BEGUN_AT + 10, 10.0) == pytest.approx(100 / 10, rel=0.05)
    assert current_rate(ends, BEGUN_AT + 10 + RATE_SECONDS, 13.0) == 0
    many = load_of(100_000, [0.1] * 100_000).ended[-SAMPLE:]
    assert current_rate(many, BEGUN_AT + 10, 10.0) == pytest.approx(10_000, rel=0.01)


def test_latency_of_the_latest() -> None:
    """Percentiles are those of the latest journeys: a long run costs no more than a short one."""
    view = mid_run()
    view.load = load_of(100_000, [9.0] * (100_000 - SAMPLE) + [0.05] * SAMPLE)
    assert "p99 50 ms" in "\n".join(screen(view, 80, 24))


# --- what shows it ---------------------------------------------------------------------------------------------


class Terminal(StringIO):
    """Tells when the first frame has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.drawn = asyncio.Event()

    def write(self, text: str) -> int:
        if "orders" in text:
            self.loop.call_soon_threadsafe(self.drawn.set)
        return super().write(text)


def test_own_screen() -> None:
    """The dashboard has a screen of its own, and leaves it when the run ends: the summary comes below what was."""

    async def run() -> str:
        terminal, view = Terminal(), mid_run()
        console = Console(file=terminal, force_terminal=True, width=80, height=24, legacy_windows=False)
        showing = asyncio.create_task(show(view, pytest.fail, console))
        await terminal.drawn.wait()
        assert view.detailed
        showing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await showing
        return terminal.getvalue()

    output = asyncio.run(run())
    assert output.index("\x1b[?1049h") < output.index("100/200") < output.index("\x1b[?1049l")
    assert "\n" not in output[output.index("\x1b[?1049l") :]


def test_failure_leaves_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dashboard that fails says so and goes on in plain lines; the run never notices."""

    def broken(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(dashboard, "render", broken)

    view = mid_run()

    async def run() -> list[str]:
        told: list[str] = []
        plain_line = asyncio.Event()

        def tell(line: str) -> None:
            told.append(line)
            if len(told) == 2:
                plain_line.set()

        console = Console(file=StringIO(), force_terminal=True, width=80, height=24)
        showing = asyncio.create_task(show(view, tell, console))
        await plain_line.wait()
        showing.cancel()
        return told

    told = asyncio.run(run())
    assert told[0] == "the dashboard has stopped (ValueError: no such colour); going on in plain lines"
    assert not view.detailed
    assert "100/200 orders ended" in told[1]


def test_warnings_are_faults() -> None:
    """What this process logs while the dashboard is up stands among the faults, and tears no screen."""
    view = empty()
    with dashboard._warnings_among_faults(view):
        logging.getLogger("sagasim.broker").warning("lost the connection to %s", "the broker")
    logging.getLogger("sagasim").handlers.append(logging.NullHandler())
    logging.getLogger("sagasim.broker").warning("unheard")
    logging.getLogger("sagasim").handlers.pop()
    assert [text for _, text in view.faults] == ["lost the connection to the broker"]
    assert "lost the connection to the broker" in "\n".join(screen(view, 80, 24))


def test_only_terminals() -> None:
    """There is no dashboard without a terminal, whatever FORCE_COLOR says."""
    assert not dashboard.is_possible(Console(file=StringIO(), force_terminal=True))
