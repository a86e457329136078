"""Requests to JetStream's own API: streams and consumers, made once and checked when they exist already.

Plain JSON, since the server ignores what it does not know: the same requests serve nats-server 2.9 and later.
"""

import json
import logging
from datetime import datetime
from typing import Any, Final

from nats import errors as nats_errors
from nats.aio.client import Client

from broker import subjects
from broker.port import BrokerError, Consumer, StreamConflictError
from broker.subjects import StreamSpec

logger = logging.getLogger("sagasim.broker")

_API: Final = "$JS.API"
_TIMEOUT_SECONDS: Final = 5.0
_NANOSECONDS: Final = 1_000_000_000

CONSUMER_NOT_FOUND: Final = 10014
STREAM_NOT_FOUND: Final = 10059
_STREAM_EXISTS_OTHERWISE: Final = 10058
_SUBJECTS_OVERLAP: Final = 10065

Json = dict[str, Any]


class ApiError(BrokerError):
    """JetStream refused a request. `code` is its own error code, 0 when there was no answer at all."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


async def request(client: Client, operation: str, body: Json | None = None) -> Json:
    """Ask JetStream's API. Raises ApiError; with code 0 it is unknown whether the request had an effect."""
    try:
        answer = await client.request(
            f"{_API}.{operation}", b"" if body is None else json.dumps(body).encode(), _TIMEOUT_SECONDS
        )
    except nats_errors.NoRespondersError:
        raise ApiError("JetStream is not enabled on this server") from None
    except TimeoutError:
        raise ApiError(f"JetStream did not answer {operation} within {_TIMEOUT_SECONDS:g} s") from None
    except nats_errors.Error as error:
        raise ApiError(f"JetStream cannot be asked: {error}") from None
    try:
        found: Json = json.loads(answer.data)
        problem = found.get("error")
    except (ValueError, AttributeError):
        raise ApiError(f"JetStream answered {operation} with something else than an object") from None
    if problem:
        text = problem.get("description", "no description")
        raise ApiError(f"JetStream refused {operation}: {text}", problem.get("err_code", 0))
    return found


async def check_enabled(client: Client) -> None:
    """Raise ApiError unless the server has JetStream and this account may use it."""
    await request(client, "INFO")


async def ensure_stream(client: Client, spec: StreamSpec, replicas: int) -> None:
    """Create a stream unless it exists. Raises StreamConflictError if the existing one cannot serve us."""
    try:
        await request(client, f"STREAM.CREATE.{spec.name}", stream_config(spec, replicas))
    except ApiError as error:
        if error.code == _SUBJECTS_OVERLAP:
            raise await _overlap(client, spec) from None
        if error.code != _STREAM_EXISTS_OTHERWISE:
            raise
        found = await request(client, f"STREAM.INFO.{spec.name}")
        _check_stream(spec, found["config"])


def stream_config(spec: StreamSpec, replicas: int) -> Json:
    """What JetStream is asked to make of a stream."""
    return {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": spec.retention,
        "storage": "file",
        "discard": "old",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1 if spec.max_bytes is None else spec.max_bytes,
        "max_age": 0 if spec.max_age_seconds is None else _nanoseconds(spec.max_age_seconds),
        "duplicate_window": _nanoseconds(spec.duplicate_window_seconds),
        "num_replicas": replicas,
    }


def _check_stream(spec: StreamSpec, config: Json) -> None:
    """Ages, sizes, replicas and the like are the operator's to choose; these are not."""
    wanted = {"subjects": sorted(spec.subjects), "retention": spec.retention, "no_ack": False, "sealed": False}
    found = {
        "subjects": sorted(config.get("subjects") or ()),
        "retention": config.get("retention"),
        "no_ack": config.get("no_ack", False),
        "sealed": config.get("sealed", False),
    }
    _compare(f"stream {spec.name}", wanted, found)


def _compare(what: str, wanted: Json, found: Json) -> None:
    differences = [
        f"{key} is {found[key]!r}, needed is {wanted[key]!r}" for key in wanted if found[key] != wanted[key]
    ]
    if differences:
        raise StreamConflictError(f"{what} exists and cannot serve us: {'; '.join(differences)}")


async def _overlap(client: Client, spec: StreamSpec) -> StreamConflictError:
    """Find out which stream holds the subjects already, for the message."""
    names: list[str] = []
    for subject in spec.subjects:
        found = await request(client, "STREAM.NAMES", {"subject": subject})
        names += found.get("streams") or []
    holders = ", ".join(sorted(set(names))) or "another stream"
    return StreamConflictError(f"stream {spec.name} needs {', '.join(spec.subjects)}, held by {holders}")


async def ensure_consumer(client: Client, consumer: Consumer, *, succeeds: bool = False) -> float:
    """Create a durable consumer, or bring an existing one up to date; return its creation in Unix seconds.

    With `succeeds` one that somebody may still be using, or has left with messages unacknowledged, is made anew:
    the messages stay in the work queue, and wait for nobody's ack any more.

    Raises StreamConflictError if the existing one cannot serve us, ApiError with STREAM_NOT_FOUND.
    """
    stream = subjects.stream_of(consumer.filter_subject).name
    try:
        found = await request(client, f"CONSUMER.INFO.{stream}.{consumer.durable}")
        _check_consumer(consumer, found["config"])
        is_in_use = found["num_ack_pending"] or found["num_waiting"]
        is_removed = succeeds and is_in_use and await _remove(client, stream, consumer.durable)
        if not is_removed and _is_up_to_date(consumer, found["config"]):
            return datetime.fromisoformat(found["created"]).timestamp()
    except ApiError as error:
        if error.code != CONSUMER_NOT_FOUND:
            raise
    body = {"stream_name": stream, "config": _consumer_config(consumer)}
    found = await request(client, f"CONSUMER.DURABLE.CREATE.{stream}.{consumer.durable}", body)
    return datetime.fromisoformat(found["created"]).timestamp()


async def _remove(client: Client, stream: str, durable: str) -> bool:
    """Whether it is gone: an account may not be allowed to do it."""
    try:
        await request(client, f"CONSUMER.DELETE.{stream}.{durable}")
    except ApiError as error:
        if error.code == CONSUMER_NOT_FOUND:
            return True
        logger.warning("consumer %s stays as it was left, until its ack wait is over: %s", durable, error)
        return False
    return True


async def is_pulled(client: Client, consumer: Consumer) -> bool:
    """Whether somebody waits for messages of a durable consumer; nobody does of one that does not exist."""
    stream = subjects.stream_of(consumer.filter_subject).name
    try:
        found = await request(client, f"CONSUMER.INFO.{stream}.{consumer.durable}")
    except ApiError as error:
        if error.code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            return False
        raise
    return bool(found["num_waiting"])


def _consumer_config(consumer: Consumer) -> Json:
    config: Json = {
        "durable_name": consumer.durable,
        "filter_subject": consumer.filter_subject,
        "deliver_policy": "new" if consumer.only_new else "all",
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(consumer.ack_wait_seconds),
        "max_ack_pending": consumer.max_ack_pending,
        "max_deliver": -1,
        "replay_policy": "instant",
    }
    if consumer.inactive_seconds is not None:
        config["inactive_threshold"] = _nanoseconds(consumer.inactive_seconds)
    return config


def _check_consumer(consumer: Consumer, config: Json) -> None:
    wanted = {"filter_subject": consumer.filter_subject, "ack_policy": "explicit", "deliver_subject": ""}
    found = {
        "filter_subject": config.get("filter_subject", ""),
        "ack_policy": config.get("ack_policy"),
        "deliver_subject": config.get("deliver_subject", ""),
    }
    _compare(f"consumer {consumer.durable}", wanted, found)


def _is_up_to_date(consumer: Consumer, config: Json) -> bool:
    wanted = _consumer_config(consumer)
    return all(config.get(key) == wanted[key] for key in ("ack_wait", "max_ack_pending", "max_deliver"))


async def messages_held(client: Client, stream: str) -> int:
    found = await request(client, f"STREAM.INFO.{stream}")
    return int(found["state"]["messages"])


async def purge(client: Client, stream: str) -> None:
    """Drop all messages of a stream; one that does not exist holds none."""
    try:
        await request(client, f"STREAM.PURGE.{stream}")
    except ApiError as error:
        if error.code != STREAM_NOT_FOUND:
            raise


def _nanoseconds(seconds: float) -> int:
    return round(seconds * _NANOSECONDS)
