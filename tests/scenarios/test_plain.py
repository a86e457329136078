"""What a run tells in plain lines while it lasts."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from scenarios import library, runner
from scenarios.chaos.campaign import Campaign
from scenarios.cluster import Cluster
from scenarios.load import Load
from scenarios.plain import progress
from scenarios.runner import Run, RunOptions
from scenarios.scenario import ScenarioError
from tests.scenarios import views


def test_progress_of_a_run_under_way() -> None:
    """How many orders have ended, and what their sagas were doing a moment ago."""
    assert progress(views.empty()) == "starting"
    assert progress(views.mid_run()) == (
        "100/200 orders ended (100 completed); under way: 2 compensating, 40 running"
    )
    assert progress(views.with_parked()).endswith("; 1 parked")


def test_nothing_is_under_way_once_all_orders_have_ended() -> None:
    """Sagas are counted once a second, and what was counted before the last orders ended is not told after them."""
    view = views.at_the_end()
    view.sagas_by_phase = Counter({"running": 40})
    assert progress(view) == "200/200 orders ended (200 completed)"


class Lasting:
    """A campaign one of whose faults outlasts the orders, for some looks."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._looks = 0

    @property
    def left(self) -> list[str]:
        return ["pause services at 5.000 s for 9.000 s"]

    async def look(self, _parked: object) -> bool:
        self._looks += 1
        if not self._load.done:
            self._load.ended.extend(views.load_of(20, [0.1] * 10).ended)
        if self._looks == 5:
            self._load.failure = ScenarioError("enough")
        return True


def test_a_run_says_once_which_faults_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its orders have ended, and it goes on: it says why, in one line."""
    monkeypatch.setattr(runner, "WATCH_SECONDS", 0.0)
    told: list[str] = []
    run = Run(library.find("happy"), RunOptions("happy", tmp_path, 1, 20, 5), told.append)
    load = views.load_of(20, [])
    cluster = SimpleNamespace(failure=None, up=lambda _: True, restarts=lambda _: 0, is_paused=lambda _: False)

    async def wait() -> None:
        await run._until_settled(load, cast(Cluster, cluster), cast(Campaign, Lasting(load)))

    with pytest.raises(ScenarioError, match="enough"):
        asyncio.run(wait())
    pause = "pause services at 5.000 s for 9.000 s"
    assert told == [f"all orders have ended; waiting for the faults still to end: {pause}"]
    assert run.view.awaited == [pause]
