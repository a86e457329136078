"""How the services of a real node behave for now: a file of the run's directory, written by whoever troubles them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from random import Random

from scenarios.chaos.trouble import Mood, Troubles, never_refused
from scenarios.scenario import Scenario

MOODS_FILE = "moods.json"
MOOD_OF = {"throws": "throws", "refuses": "refuses", "slow": "slow_seconds"}
"""What a kind of fault does to the mood of its service."""

assert {field.name for field in fields(Mood)} == set(MOOD_OF.values())


def write_moods(data: Path, moods: Mapping[str, Mood]) -> None:
    """Replace the file as a whole. Raises OSError."""
    path = data / MOODS_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({service: asdict(mood) for service, mood in moods.items()}))
    partial.replace(path)


def troubled(scenario: Scenario, data: Path) -> Scenario:
    """The scenario for a node whose services are in the moods of the file, as it is at each command."""
    troubles = Troubles(Random(), never_refused(scenario), refresh=_Reader(data / MOODS_FILE))
    return replace(scenario, domain=troubles.applied_to(scenario.domain))


class _Reader:
    """Reads the file when it has changed. Without one every service is well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0, 0  # each version is another file, of another time

    def __call__(self, troubles: Troubles) -> None:
        try:
            found = self._path.stat()
            if (found.st_ino, found.st_mtime_ns) == self._seen:
                return
            self._seen = found.st_ino, found.st_mtime_ns
            moods = json.loads(self._path.read_text())
        except FileNotFoundError:
            return
        for service, mood in moods.items():
            for name, value in mood.items():
                setattr(troubles.mood(service), name, value)
