"""What was found in a run's directory, as JSON."""

import json
from dataclasses import asdict
from typing import Any

from scenarios.inspection import Difference, Life, Overview
from scenarios.timeline import timeline


def overview_json(found: Overview) -> dict[str, Any]:
    lists = {name: [asdict(row) for row in getattr(found, name)] for name in ("parked", "stalled", "sagas")}
    counts = dict(sorted(found.counts.items()))
    about = {"data": found.data, "since_seconds": found.since_seconds, "counts": counts}
    return about | {"counted_finished": found.counted_finished} | lists


def life_json(life: Life) -> dict[str, Any]:
    """One flat object; the steps' statuses stand in `steps`, the transitions in `timeline`, and in `attempts` what
    lies between them. `took_seconds` is how long the attempt took that a transition answers, or null."""
    whole = asdict(life)
    row = whole.pop("row")
    del row["steps"]
    told = timeline(life.timeline)
    whole["timeline"] = [
        {"sequence": sequence, "took_seconds": told.took.get(sequence)} | entry._asdict()
        for sequence, entry in life.timeline
    ]
    whole["attempts"] = [
        asdict(attempt) | {"duration_seconds": attempt.duration_seconds} for attempt in told.attempts
    ]
    return _cleaned(row | whole)


def difference_json(found: Difference) -> dict[str, Any]:
    changes = [{"what": change.what, "from": change.before, "to": change.after} for change in found.changes]
    between = [{"sequence": sequence} | entry._asdict() for sequence, entry in found.between()]
    return _cleaned(
        {
            "saga_id": found.saga_id,
            "from": found.before,
            "to": found.after,
            "transitions": between,
            "changes": changes,
        }
    )


def as_json(found: object) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False, default=str)


def _cleaned(value: dict[str, Any]) -> dict[str, Any]:
    return {key: _jsonable(item) for key, item in value.items()}


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
