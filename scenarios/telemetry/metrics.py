"""A node's figures in the text format of Prometheus. Everything is read when somebody asks, and nothing before.

The format is a page of text, so it needs no library here; the tests read it with Prometheus's own parser.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from actors.node import Node
from scenarios.scenario import COORDINATOR

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BOTH = {
    "redelivered": ("messages_redelivered", "Messages that the broker has delivered more than once."),
    "dead_letters": ("dead_letters", "Messages set aside because nobody can make anything of them."),
}
_COORDINATOR = {
    "sagas_started": ("sagas_started", "Sagas begun."),
    "sagas_completed": ("sagas_completed", "Sagas that ended entirely done."),
    "sagas_compensated": ("sagas_compensated", "Sagas that ended entirely undone."),
    "transitions": ("transitions", "Changes of a saga's state."),
    "retries": ("attempts_missed", "Attempts of a command that timed out or faulted."),
    "timeouts": ("attempts_timed_out", "Attempts of a command that were not answered in time."),
    "late": ("messages_late", "Late or duplicate messages to a saga; they change nothing."),
    "rehydrated": ("sagas_rehydrated", "Sagas brought back from their snapshot."),
    "restarts": ("sagas_restarted", "Sagas whose actor raised and was started again."),
}
_SERVICES = {
    "executed": ("commands_executed", "Commands whose handler has run to its end."),
    "refused": ("commands_refused", "Commands that a service has refused."),
    "faulted": ("commands_faulted", "Commands whose handler raised; they are tried again."),
    "duplicates_suppressed": ("commands_suppressed", "Commands answered from the ledger: they were done before."),
    "tombstones": ("commands_tombstoned", "Undos that came before their action."),
    "outbox_resent": ("starts_resent", "Starts of sagas that were sent again because nobody has answered."),
}
_GAUGES = {
    "sagas_in_flight": "Sagas with a live actor that do not wait for a person.",
    "sagas_parked": "Sagas that wait for a person.",
    "starts_queued": "Starts of sagas put off because as many are in flight as may be.",
    "starts_unanswered": "Starts of sagas that the coordinator has not answered yet.",
    "broker_connected": "Whether there is a connection to the broker: 1 or 0.",
}


@dataclass(frozen=True, slots=True)
class About:
    """What a node is. `role` is coordinator or services."""

    role: str
    scenario: str


def exposition(node: Node, about: About) -> str:
    """All figures of a node, now."""
    committer = node.committer
    parts = [
        _metric("gauge", "node_info", "What this node is.", 1, {"role": about.role, "scenario": about.scenario}),
        _metric(
            "gauge", "epoch", "How often the node's directory has been opened: its life.", node.environment.epoch
        ),
        *(_metric("gauge", name, _GAUGES.get(name, _words(name)), value) for name, value in _gauges(node)),
        _metric("gauge", "works_pending", "Changes handed to the store and not yet reported.", committer.pending),
        _metric(
            "gauge",
            "publishes_unacknowledged",
            "Messages that the broker has not answered for yet.",
            node.batcher.unacknowledged,
        ),
        _metric("counter", "commits_total", "Transactions of the store, each with one fsync.", committer.commits),
        _metric("counter", "works_total", "Changes committed by them.", committer.works),
        *(_metric("counter", *row) for row in _counters(node.counters, about.role)),
        _metric("counter", "cpu_seconds_total", "CPU time that the node's process has used.", time.process_time()),
    ]
    return "".join(parts)


def _gauges(node: Node) -> Iterable[tuple[str, int]]:
    """Each once: those of several services are one sum."""
    sums: dict[str, int] = {}
    for name, value in node.gauges:
        sums[name] = sums.get(name, 0) + value()
    return sums.items()


def _counters(counters: Mapping[str, int], role: str) -> Iterable[tuple[str, str, int]]:
    """Those of its role, from the first scrape on; and whatever else has been counted."""
    known = _BOTH | (_COORDINATOR if role == COORDINATOR else _SERVICES)
    others = {name: (name, _words(name)) for name in sorted(counters.keys() - known.keys())}
    for counter, (name, text) in (known | others).items():
        yield f"{name}_total", text, counters.get(counter, 0)


def _words(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}."


def _metric(kind: str, name: str, text: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    """One metric with one sample. The texts are ours, and a scenario's name is the only label that is not."""
    told = ",".join(f'{label}="{_escaped(words)}"' for label, words in (labels or {}).items())
    sample = f"sagasim_{name}{{{told}}}" if told else f"sagasim_{name}"
    return f"# HELP sagasim_{name} {text}\n# TYPE sagasim_{name} {kind}\n{sample} {value}\n"


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
