"""`run_sim.py soak` from its options to its exit status."""

import asyncio
import json
import shlex
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from scenarios.scenario import Scenario, ScenarioError
from scenarios.soak.soak import Soak, SoakOptions
from scenarios.soak.tally import Tally

SHOWN_VIOLATIONS = 20  # the first of many tell as much as all


@dataclass(frozen=True, slots=True)
class SoakCommand:
    """`keep` leaves the data of a soak that has passed, too."""

    scenario: Scenario
    options: SoakOptions
    keep: bool
    json: Path | None


def soak(command: SoakCommand, say: Callable[[str], None]) -> int:
    """0 if nothing was lost and nothing happened twice, 1 otherwise, 130 or 143 if it was stopped.

    Raises ScenarioError, StorageError, BrokerError or ClusterError if it cannot begin.
    """
    options = command.options
    say(f"soak: {command.scenario.name}, {options.minutes:g} minutes, seed {options.seed}, data in {options.data}")
    it = Soak(command.scenario, options, say)
    status = _run(it)
    _write(command, it.tally)
    say(it.tally.text())
    violations = it.tally.violations
    for violation in violations[:SHOWN_VIOLATIONS]:
        say(f"violation: {violation}")
    if len(violations) > SHOWN_VIOLATIONS:
        say(f"and {len(violations) - SHOWN_VIOLATIONS} more")
    if status or command.keep:
        say(f"data and logs: {options.data}")
    else:
        shutil.rmtree(options.data, ignore_errors=True)
    words = [
        "run_sim.py",
        "soak",
        options.reference,
        "--minutes",
        f"{options.minutes:g}",
        "--seed",
        str(options.seed),
    ]
    say(f"again: {shlex.join(words)}")
    say(f"verdict: {it.tally.verdict}")
    return status


def _run(it: Soak) -> int:
    try:
        asyncio.run(_stoppable(it))
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143
    return 1 if it.tally.violations else 0


async def _stoppable(it: Soak) -> None:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    await it.go()


def _write(command: SoakCommand, tally: Tally) -> None:
    if command.json is None:
        return
    try:
        command.json.write_text(json.dumps(asdict(tally), indent=2) + "\n")
    except OSError as error:
        raise ScenarioError(f"--json {command.json}: {error.strerror}") from None
