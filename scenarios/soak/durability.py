"""Measures what is lost, and how soon all works again, for each event under each setting of the two syncs.

`python -m scenarios.soak.durability` prints the tables of docs/DURABILITY.md; a cell takes some five seconds.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Sequence
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
            print(f"{event}, {setting}: {'bad' if is_bad(outcomes[-1]) else 'good'}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    print("\n".join(tables(outcomes)))
    return 1 if any(map(is_bad, outcomes)) else 0


def is_bad(outcome: Outcome) -> bool:
    return bool(outcome.lost or outcome.duplicate_effects or outcome.violations)


def tables(outcomes: Sequence[Outcome]) -> list[str]:
    """Markdown: what recovers by itself, a row an event and a column a setting; then each that does not."""
    survived = [outcome for outcome in outcomes if outcome.event in STRIKES]
    lines = [f"| event | {' | '.join(map(str, SETTINGS))} |", "|---|" + "---|" * len(SETTINGS)] if survived else []
    for event in STRIKES:
        cells = [_survived(outcome) for outcome in survived if outcome.event == event]
        lines += [f"| {event} | {' | '.join(cells)} |"] if cells else []
    for event in (DISK_LOST, RESTORED):
        found = [outcome for outcome in outcomes if outcome.event == event]
        lines += ["", f"{event}:", "", *map(_told, found)] if found else []
    bad = sum(map(is_bad, outcomes))
    return [*lines, "", f"{len(outcomes)} cells, {bad} of them with an order lost, an effect doubled or a violation"]


def _survived(outcome: Outcome) -> str:
    words = [f"{outcome.in_flight} in flight", f"{outcome.works_again_seconds} s, {outcome.all_ended_seconds} s"]
    if "broker" in outcome.event:
        words.append(f"{outcome.messages_lost} of {outcome.messages} messages lost")
    return "; ".join([*words, f"{outcome.asked_again} asked again", *_wrong(outcome)])


def _told(outcome: Outcome) -> str:
    words = [f"{outcome.in_flight} in flight"]
    if outcome.works_again_seconds is not None:
        words.append(f"new orders end after {outcome.works_again_seconds} s")
    if outcome.all_ended_seconds is not None:
        words.append(f"run on from the backup, audited in the end: {outcome.all_ended_seconds} s")
    return f"- {outcome.setting}: {'; '.join([*words, *outcome.said, *_wrong(outcome)])}"


def _wrong(outcome: Outcome) -> list[str]:
    found = {"lost": outcome.lost, "done twice": outcome.duplicate_effects, "violations": outcome.violations}
    return [f"**{count} {what}**" for what, count in found.items() if count]


if __name__ == "__main__":
    raise SystemExit(main())
