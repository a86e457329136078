"""`serve`. Whatever this module imports is loaded whenever a node is started again."""

import asyncio
import os
import sys
from argparse import Namespace
from pathlib import Path

from actors.limits import Limits
from actors.service import LedgerLimits
from broker.port import BrokerError
from persistence.errors import DiskError, LockedError
from scenarios import library, logs, serving
from scenarios.chaos.crash_point import from_text
from scenarios.chaos.moods import troubled
from scenarios.errors import ScenarioError
from scenarios.held_directory import URL_FILE
from scenarios.telemetry.tracing import check_tracing

LEDGER_FACTOR = 2  # a saga that is finished, and yet to be forgotten, may still be asked about
MIN_LEDGER_SECONDS = 24 * 3600.0
"""A service must not forget what it has done while it may be asked again, however soon finished sagas may go."""


def _interval_seconds(keep_seconds: float) -> float:
    """How often to prune: ten times within what is kept, but once a minute at least, and once a second at most."""
    return min(max(1.0, keep_seconds / 10), Limits().prune_interval_seconds)


def _limits(keep_seconds: float | None) -> Limits:
    if keep_seconds is None:
        return Limits()
    return Limits(keep_finished_seconds=keep_seconds, prune_interval_seconds=_interval_seconds(keep_seconds))


def _ledger_limits(keep_seconds: float | None) -> LedgerLimits:
    if keep_seconds is None:
        return LedgerLimits()
    return LedgerLimits(keep_seconds=max(LEDGER_FACTOR * keep_seconds, MIN_LEDGER_SECONDS))


def serve(options: Namespace) -> int:
    """One node, until it is told to stop. Raises ScenarioError, BrokerError or StorageError if it cannot begin."""
    os.umask(0o077)
    scenario = library.find(options.scenario)
    if options.troubled:
        scenario = troubled(scenario, options.data)
    if options.otel:
        check_tracing()
    url = options.nats
    if url is None:
        path = Path(options.url_file or options.data / URL_FILE)
        try:
            url = path.read_text().strip()
        except OSError:
            raise ScenarioError(f"give --nats URL: there is no {path.name} in {path.parent}") from None
    log = options.data / "logs" / f"{options.role}.log" if options.with_parent else None
    logs.set_up(log, level=options.log_level, form=options.log_format)
    try:
        kill = None if options.kill is None else from_text(options.kill)
    except (ValueError, TypeError):
        raise ScenarioError(f"--kill {options.kill} is not a kill") from None
    wanted = serving.Serving(
        role=options.role,
        data=options.data.resolve(),
        access=serving.Access(url, options.creds, options.tls_ca, options.tls_cert, options.tls_key),
        scenario=scenario,
        kill=kill,
        with_parent=options.with_parent,
        sync=not options.no_sync,
        max_map_bytes=serving.MAX_MAP_BYTES if options.max_map_mb is None else options.max_map_mb << 20,
        metrics=options.metrics,
        otel=options.otel,
        limits=_limits(options.keep),
        ledger_limits=_ledger_limits(options.keep),
    )
    try:
        return asyncio.run(serving.serve(wanted))
    except (LockedError, DiskError, BrokerError) as error:
        if not options.with_parent:
            raise
        print(f"sagasim: {error}", file=sys.stderr)
        return serving.NOT_YET
