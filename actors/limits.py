"""What bounds a coordinator."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Counts are of sagas unless they say otherwise; ages and intervals are in seconds."""

    in_flight: int = 20_000  # sagas at a time, parked ones aside; further starts are left unacknowledged ...
    in_flight_behind: int = 1_000  # ... and beyond so many while any service is behind; see `Lag`
    restarts: int = 3  # of one saga's actor within `restart_window_seconds`, then it is parked
    restart_window_seconds: float = 60.0
    rehydration_page: int = 1024
    unacknowledged_publishes: int = 64  # rehydration waits while the broker has more to acknowledge than this
    keep_finished_seconds: float = 7 * 24 * 3600.0
    prune_interval_seconds: float = 60.0
    prune_slice: int = 100
