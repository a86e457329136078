"""Every subject, stream and consumer name. Nothing else in the project spells one out."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from broker.port import Consumer

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a service, a definition, a coordinator or a saga id may look like inside a subject."""

_DAY_SECONDS: Final = 24 * 3600.0
# The same few subjects are asked for with every message.
_remembered: Callable[[Callable[[str], str]], Callable[[str], str]] = lru_cache(maxsize=1024)


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream as data. A work queue drops a message once it is acknowledged; `limits` drops the oldest.

    `max_age_seconds` and `max_bytes`: None is unbounded.
    """

    name: str
    subjects: tuple[str, ...]
    retention: Literal["workqueue", "limits"]
    max_age_seconds: float | None
    max_bytes: int | None
    # Only has to outlive a publish that is sent again after a reconnect; the server keeps each id in memory.
    duplicate_window_seconds: float = 30.0


# Work queues carry no bound of their own: dropping the oldest command would lose it, and what lies in them is
# bounded by what sagas have in flight. Events and dead letters are for people to look at, so old ones may go.
STREAMS: Final = (
    StreamSpec("SAGA_START", ("saga.start.*",), "workqueue", None, None),
    StreamSpec("SAGA_COMMAND", ("saga.command.*",), "workqueue", None, None),
    StreamSpec("SAGA_REPLY", ("saga.reply.*",), "workqueue", None, None),
    StreamSpec("SAGA_CONTROL", ("saga.control.*",), "workqueue", None, None),
    StreamSpec("SAGA_EVENT", ("saga.event.*",), "limits", _DAY_SECONDS, 256 * 1024 * 1024),
    StreamSpec("SAGA_DEAD", ("saga.dead.*",), "limits", 30 * _DAY_SECONDS, 64 * 1024 * 1024),
)


def check_token(kind: str, value: str) -> str:
    """Return `value` if it may stand in a subject. Raises ValueError that names `kind`."""
    if not TOKEN.fullmatch(value):
        raise ValueError(f"{kind} {value!r} must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return value


@_remembered
def start(definition: str) -> str:
    return f"saga.start.{check_token('definition', definition)}"


@_remembered
def command(service: str) -> str:
    return f"saga.command.{check_token('service', service)}"


@_remembered
def reply(coordinator: str) -> str:
    return f"saga.reply.{check_token('coordinator', coordinator)}"


@_remembered
def event(definition: str) -> str:
    return f"saga.event.{check_token('definition', definition)}"


@_remembered
def control(coordinator: str) -> str:
    return f"saga.control.{check_token('coordinator', coordinator)}"


@_remembered
def dead(origin: str) -> str:
    return f"saga.dead.{check_token('origin', origin)}"


def starts() -> Consumer:
    """Whoever coordinates: requests to start a saga of any definition."""
    return Consumer("saga-starts", "saga.start.*", takes_over=True)


def commands(service: str) -> Consumer:
    return Consumer(f"saga-commands-{service}", command(service), takes_over=True)


def replies(coordinator: str) -> Consumer:
    return Consumer(f"saga-replies-{coordinator}", reply(coordinator), takes_over=True)


def controls(coordinator: str) -> Consumer:
    return Consumer(f"saga-controls-{coordinator}", control(coordinator), takes_over=True)


def events(durable: str, *, inactive_seconds: float | None = None, only_new: bool = False) -> Consumer:
    """Lifecycle events of every definition, for a dashboard or an outsider that names itself."""
    name = check_token("durable name", durable)
    return Consumer(name, "saga.event.*", inactive_seconds=inactive_seconds, only_new=only_new)


def dead_letters(durable: str, *, inactive_seconds: float | None = None, only_new: bool = False) -> Consumer:
    """Dead letters of every origin, for a dashboard or an outsider that names itself."""
    name = check_token("durable name", durable)
    return Consumer(name, "saga.dead.*", inactive_seconds=inactive_seconds, only_new=only_new)


def stream_of(subject: str) -> StreamSpec:
    """The stream that holds a subject, or the filter of a consumer. Raises ValueError if none does."""
    head, dot, last = subject.rpartition(".")
    for spec in STREAMS:
        if dot and last and f"{head}.*" in spec.subjects:
            return spec
    raise ValueError(f"no stream holds the subject {subject!r}")
