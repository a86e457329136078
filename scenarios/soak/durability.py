"""Measures what is lost, and how soon all works again, for each event under each setting of the two syncs.

`python -m scenarios.soak.durability` prints the tables of docs/DURABILITY.md; a cell takes some ten seconds.
"""

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from scenarios.soak.cells import DISK_LOST, EVENTS, RESTORED, STRIKES, Outcome, Setting, measure

SETTINGS = [Setting(lmdb, broker) for lmdb in (True, False) for broker in (False, True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if nothing was lost where nothing may be, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m scenarios.soak.durability", description=__doc__)
    parser.add_argument("--event", action="append", choices=EVENTS, help="only this one; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every cell as one JSON array")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    outcomes = []
    for event in options.event or EVENTS:
        for setting in SETTINGS:
            with tempfile.TemporaryDirectory(prefix="sagasim-durability-") as data:
                outcomes.append(asyncio.run(measure(event, setting, Path(data) / "run")))
            print(f"{outcomes[-1]}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    print("\n".join(tables(outcomes)))
    return 1 if any(outcome.event != DISK_LOST and is_bad(outcome) for outcome in outcomes) else 0


def is_bad(outcome: Outcome) -> bool:
    return bool(outcome.lost or outcome.duplicate_effects or outcome.violations)


def tables(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: what recovers by itself, a row an event and a column a setting; then each that does not."""
    lines = ["", f"| event | {' | '.join(map(str, SETTINGS))} |", "|---|" + "---|" * len(SETTINGS)]
    for event in STRIKES:
        cells = [_survived(outcome) for outcome in outcomes if outcome.event == event]
        if cells:
            lines.append(f"| {event} | {' | '.join(cells)} |")
    for event in (DISK_LOST, RESTORED):
        found = [outcome for outcome in outcomes if outcome.event == event]
        lines += ["", f"{event}:", *_listed(found)] if found else []
    return lines


def _survived(outcome: Outcome) -> str:
    words = [f"{outcome.in_flight} in flight", f"{outcome.lost} lost", f"{outcome.duplicate_effects} done twice"]
    if outcome.event.startswith("broker"):
        words.append(f"{outcome.messages_lost} of {outcome.messages} acknowledged messages lost")
    words += [f"{outcome.asked_again} asked again", f"works again in {outcome.works_again_seconds} s"]
    return ", ".join([*words, f"all ended in {outcome.all_ended_seconds} s"])


def _listed(outcomes: Iterable[Outcome]) -> list[str]:
    lines = []
    for outcome in outcomes:
        words = [f"{outcome.in_flight} in flight", f"{outcome.lost} lost"]
        words += [f"{count} {what}" for what, count in outcome.left.items()]
        if outcome.works_again_seconds is not None:
            words.append(f"new orders end after {outcome.works_again_seconds} s")
        if outcome.all_ended_seconds is not None:
            words.append(f"all ended in {outcome.all_ended_seconds} s")
        lines.append(f"- {outcome.setting}: {', '.join([*words, *outcome.said])}")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
