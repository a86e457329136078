"""The dashboard: whatever the run and the size of the terminal, it fits and tells what matters."""

import asyncio
import logging
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from actors.messages import Lifecycle
from scenarios.cockpit import dashboard
from scenarios.cockpit.dashboard import Focus, render, share, show
from scenarios.cockpit.head import RATE_SECONDS, SAMPLE, current_rate
from scenarios.cockpit.panels import Panel, books_panel, steps_panel
from scenarios.cockpit.sagas import moved, saga_order
from scenarios.glyphs import ASCII, UNICODE, Glyphs
from scenarios.inspection import Inspector, Life
from scenarios.tally import StepCount
from scenarios.terminal import is_drawable
from scenarios.view import RunView
from tests.scenarios.played import PARKED, one_of_each
from tests.scenarios.views import (
    BEGUN_AT,
    at_the_end,
    empty,
    load_of,
    mid_run,
    saga_id,
    states,
    with_parked,
)

SIZES = [(160, 50), (120, 30), (80, 24), (79, 12), (40, 10), (20, 5), (7, 3), (1, 1), (0, 0)]
VIEWS = [empty, mid_run, with_parked, at_the_end]


def screen(view: RunView, width: int, height: int, glyphs: Glyphs = UNICODE, focus: Focus | None = None) -> list[str]:
    return [str(line) for line in render(view, width, height, glyphs, focus).renderables]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """All about a saga that is parked."""
    inspector = Inspector.open(one_of_each(tmp_path))
    try:
        return inspector.life(PARKED)
    finally:
        inspector.close()


# --- what fits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("make", VIEWS)
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_fits(make: Callable[[], RunView], width: int, height: int, glyphs: Glyphs, life: Life) -> None:
    """At any size, whatever the run and the keys have chosen, nothing is wider or higher than the terminal."""
    chosen = [None, Focus(), Focus(saga_id(41)), Focus(PARKED, True, life), Focus(PARKED, True)]
    for focus in chosen:
        frame = render(make(), width, height, glyphs, focus)
        output = StringIO()
        Console(file=output, width=max(1, width), force_terminal=False).print(frame)
        assert len(frame.renderables) <= height
        assert len(output.getvalue().splitlines()) <= height
        assert all(isinstance(line, Text) and line.cell_len <= width for line in frame.renderables)


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
        "0 of 50 orders in flight",
    ]
    facts += ["100 completed", "10/s mean", "p50 45 ms", "coordinator up, 2 restarts", "broker DOWN"]
    facts += ["12 pending", "5 redelivered", "2 dead letters", "3 retries", "they add up"]
    facts += ["57 CONFIRMED", "= 125.00 EUR", "57 dispatched", "= 100", "peak 12/s", "0.25 s a column"]
    facts += ["done/refused/retried/undone", "of 90 of 100 sagas", "authorize", "commit_stock"]
    facts += ["kill coordinator at commit.after", "●●▸●···· authorize", "●●●●●●●● completed in 44 ms"]
    assert [fact for fact in facts if fact not in text] == []


def test_a_paused_node_is_not_up() -> None:
    """Its process lives, and does nothing: the screen says so, beside its restarts, until it goes on."""
    view = mid_run()
    view.nodes_paused = {"coordinator"}
    text = "\n".join(screen(view, 80, 24))
    assert "coordinator paused, 2 restarts" in text
    assert "services up" in text


def test_a_saga_whose_end_was_not_heard_has_ended() -> None:
    """Its last event was lost with the broker's store; it does not stay among those under way."""
    view = mid_run()
    view.latest, view.latest_states = {}, {saga_id(50): states(*["done"] * 8)}
    view.heard(Lifecycle(saga_id(50), "order", "started", 1000.0, ""))
    view.latest_states[saga_id(51)] = states("doing")
    assert saga_order(view)[1:] == ([saga_id(50), saga_id(51)], [])
    view.latest_ends = {saga_id(50): "completed"}
    assert saga_order(view)[1:] == ([saga_id(51)], [saga_id(50)])
    assert f"{saga_id(50)} ●●●●●●●● completed" in [line.rstrip() for line in screen(view, 80, 40)]


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
    assert sum("parked: the carrier" in line for line in lines) >= 2
    assert any(saga_id(0) in line for line in lines)
    assert "500 parked" in lines[2]


def test_a_run_that_waits_for_faults() -> None:
    """All orders have ended and the screen goes on: it says what for, where the sagas in flight were."""
    view = at_the_end()
    view.awaited = ["pause services at 5.000 s for 9.000 s"]
    assert "sagas   waiting for the faults still to end: pause services at 5.0" in "\n".join(screen(view, 80, 24))


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


# --- the run over time -----------------------------------------------------------------------------------------


def lines_over_time(view: RunView, width: int) -> tuple[str, str]:
    """What the lines of the rate and of the faults draw."""
    rate, faults = (
        next(line for line in screen(view, width, 24) if line.startswith(word)) for word in ("rate", "fau")
    )
    return rate[8 : width - 18].rstrip(), faults[8 : width - 18].rstrip()


def test_faults_stand_below_the_rate_of_their_time() -> None:
    """A column is the same time in both lines; where nothing ended is nothing, and several faults are counted."""
    view = mid_run()
    view.pace.ends[20:24] = [0, 0, 0, 0]
    view.faults.clear()
    view.faults.extend([(2.5, "one"), (5.0, "two"), (5.1, "three")])
    rate, faults = lines_over_time(view, 80)
    assert (len(rate), rate[20:24]) == (40, "    ")
    assert " " not in rate[:20]
    assert faults == " " * 10 + "×" + " " * 9 + "2"


def test_a_long_run_fits_into_the_same_columns() -> None:
    """Columns stand for more and more time, so that the whole run is there: marks move together with the rate."""
    view = mid_run()
    view.begun_at -= 3600
    view.pace.add([2000.0] * 640)
    view.faults.clear()
    view.faults.append((2000.0, "late"))
    rate, faults = lines_over_time(view, 80)
    column = 2000 // 128  # 54 columns, for an hour: 128 s each
    assert (rate[column], faults) == ("█", " " * column + "×")
    assert "peak 5/s" in "\n".join(screen(view, 80, 24))
    assert "128 s a column" in "\n".join(screen(view, 80, 24))


# --- what keys have chosen -------------------------------------------------------------------------------------


def test_the_help_is_the_last_line() -> None:
    """All keys at 80 columns, those that fit elsewhere; none where there is no terminal to press them on."""
    full = "q quit  ↑↓⏎ saga  x cancel  r resume/retry  csb kill  CSB pause  w wipe  -+ load"
    for view in (empty(), mid_run()):
        lines = screen(view, 80, 24, focus=Focus())
        assert (len(lines), lines[-1]) == (24, full)
    assert screen(mid_run(), 40, 10, focus=Focus())[-1] == "q quit  ↑↓⏎ saga  x cancel"
    assert screen(mid_run(), 80, 24, focus=Focus(PARKED, True))[-1].startswith("q quit  esc back  x cancel")
    assert full not in "\n".join(screen(mid_run(), 80, 24))


def test_a_remark_stands_for_a_while_where_the_keys_are() -> None:
    """What someone at the keys is to know is said in the last line, and moves nothing."""
    view = mid_run()
    view.remark("cannot kill broker: it is down")
    assert screen(view, 80, 24, focus=Focus())[-1] == "cannot kill broker: it is down"
    view.remarked = (view.remarked[0] - dashboard.REMARK_SECONDS, view.remarked[1])
    assert screen(view, 80, 24, focus=Focus())[-1].startswith("q quit")


def test_the_selected_saga_is_marked() -> None:
    """Without colours too; and whoever goes down the list finds every saga on the screen, one after the other."""
    view, chosen, seen = with_parked(), "", []
    for _ in range(60):
        chosen = moved(view, chosen, 1)
        seen.append(chosen)
        marked = [line for line in screen(view, 80, 24, focus=Focus(chosen)) if "❯" in line]
        assert [line.startswith(f"{chosen}❯") for line in marked] == [True]
    assert seen[:3] == [saga_id(40), saga_id(41), saga_id(0)]
    assert len(set(seen)) == 50
    assert seen[49:] == [seen[49]] * 11  # the end of the list
    assert moved(view, saga_id(41), -1) == saga_id(40) == moved(view, saga_id(40), -1)


def test_a_selected_saga_may_go() -> None:
    """It stays on the screen when it is none of the latest any more; from there one begins anew on top."""
    lines = screen(with_parked(), 80, 24, focus=Focus("01a2050f91df-gone"))
    assert "01a2050f91df-gone❯ no longer among the latest" in lines
    assert moved(with_parked(), "01a2050f91df-gone", 1) == saga_id(40)
    assert moved(empty(), "", 1) == ""


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50)])
def test_an_open_saga_is_told_whole(width: int, height: int, life: Life) -> None:
    """Why it is parked, each step as a bar, and its latest transitions, beside how the run is getting on."""
    lines = screen(mid_run(), width, height, focus=Focus(PARKED, True, life))
    text = "\n".join(lines)
    assert [line.split()[0] for line in lines[:4]] == ["mixed", "orders", "sagas", "nodes"]
    assert f"── {PARKED}  order  parked, running ──" in text
    assert "capture refused: no" in text
    for step in ("open", "authorize", "dispatch"):
        assert any(line.startswith(step) and "━" in line for line in lines)
    last = next(line for line in lines if line.lstrip().startswith("9 "))
    assert last.split()[:7] == ["9", "+0.080", "s", "30.0", "ms", "dispatch", "1"]


def test_an_open_saga_that_cannot_be_read() -> None:
    """While its store is away, the screen says so."""
    assert "it cannot be read just now" in screen(mid_run(), 80, 24, focus=Focus(PARKED, True))


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


def test_a_sum_stays_to_be_seen() -> None:
    """A line of books that is too long loses its parts before the sum that they must have."""
    view = mid_run()
    view.books = {"payment": ["1,551,273.00 captured + 197,649.00 voided + 20,000.00 held = 1,768,922.00 EUR"]}
    line = str(books_panel(view, UNICODE, 60).draw(1)[0])
    assert line == "payment    1,551,273.00 captured + 197,6… = 1,768,922.00 EUR"


def test_books_that_do_not_add_up() -> None:
    """What an audit finds in the middle of a run is said at once."""
    view = mid_run()
    view.violations = ["sku-3: oversold"]
    assert books_panel(view, UNICODE, 78).notes == ("1 VIOLATION: sku-3: oversold",)
    assert "1 VIOLATION: sku-3" in "\n".join(screen(view, 80, 24))


def test_steps_dense_and_wide() -> None:
    """A line a step with the columns named, or as many steps a line as fit, with large numbers in short."""
    view = mid_run()
    view.tally.counts["open"] = StepCount(123_456, 9_999, 10_000, 7)
    panel_ = steps_panel(view, UNICODE, 78)
    assert str(panel_.draw(9)[0]).split() == ["done", "refused", "retried", "undone"]
    assert str(panel_.draw(9)[1]).split() == ["open", "123,456", "9,999", "10,000", "7"]
    assert str(panel_.draw(3)[0]).split() == [
        "open",
        "123k/9999/10k/7",
        "reserve",
        "0/0/0/0",
        "authorize",
        "57/14/3/9",
    ]
    assert len(panel_.draw(panel_.least)) == panel_.least == 3


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
        showing = asyncio.create_task(show(view, pytest.fail, console=console))
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
        showing = asyncio.create_task(show(view, tell, console=console))
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
    assert not is_drawable(Console(file=StringIO(), force_terminal=True))
