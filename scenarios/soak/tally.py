"""What a soak came to: the table at its end, and the object that `--json` writes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from scenarios.chaos.faults import Fault
from scenarios.page import Page
from scenarios.places import BOUNDARIES, BROKER, NODES
from scenarios.scenario import Result
from scenarios.soak.recovery import Recoveries

BY_THE_CLOCK = "by the clock"
PLACES = (BY_THE_CLOCK, *BOUNDARIES)
_COUNTERS = {
    "redelivered": ("coordinator_redelivered", "services_redelivered"),
    "duplicates_suppressed": ("duplicates_suppressed",),
    "late": ("late",),
    "retries": ("retries",),
    "rehydrated": ("rehydrated",),
    "dead_letters": ("coordinator_dead_letters", "services_dead_letters"),
    "zombies_fenced": ("zombies_fenced",),
    "strange_messages": ("strange_messages",),
}


@dataclass(slots=True)
class Tally:
    """`kills` are the nodes' deaths by SIGKILL, by node and where. `phases` were audited, with `orders` in all.

    `counters` are the nodes' own: of a life that was killed the last half second is missing. `recovery` tells of each
    node how often it was started again, of how many starts it was measured how long it took until it worked again,
    and p50, p95, p99 and the longest of that, in seconds.
    """

    scenario: str
    seed: int
    minutes: float
    verdict: str = "stopped"
    elapsed_seconds: float = 0.0
    phases: int = 0
    orders: int = 0
    completed: int = 0
    compensated: int = 0
    rejected: int = 0
    parked: int = 0
    lost: int = 0
    duplicate_effects: int = 0
    violations: list[str] = field(default_factory=list)
    kills: dict[str, dict[str, int]] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    recovery: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def all_kills(self) -> int:
        return sum(sum(places.values()) for places in self.kills.values())

    def take(self, result: Result) -> None:
        """A judgement of all that there has been so far."""
        for name in ("orders", "completed", "compensated", "rejected", "parked", "lost", "duplicate_effects"):
            setattr(self, name, getattr(result, name))
        self.violations += result.violations

    def count(
        self,
        killed: Mapping[tuple[str, str], int],
        fired: Sequence[Fault],
        recoveries: Mapping[str, Recoveries],
        counters: Mapping[str, int],
    ) -> None:
        """What has happened so far, whether it has been judged or not."""
        self.kills = {
            node: {place: killed.get((node, "" if place == BY_THE_CLOCK else place), 0) for place in PLACES}
            for node in NODES
        }
        kinds = Counter(f"{fault.kind} {fault.detail}".strip() for fault in fired if fault.kind != "boundary")
        self.faults = dict(sorted(kinds.items()))
        self.counters = {name: sum(counters.get(part, 0) for part in parts) for name, parts in _COUNTERS.items()}
        self.recovery = {
            node: {"starts": of.starts, "measured": len(of.seconds)} | of.percentiles_seconds() | _longest(of)
            for node, of in recoveries.items()
        }

    def text(self) -> str:
        """The table, and what it rests on."""
        page = Page()
        headings = ("SIGKILLs", *PLACES, "all", "")
        rows = [
            [Text(node), *(_figure(node, place, count) for place, count in places.items()), _sum(places), Text()]
            for node, places in self.kills.items()
        ]
        page.table(headings, rows, right=headings[1:])
        page.say(f"{self.all_kills} SIGKILLs in {self.elapsed_seconds / 60:.1f} minutes")
        page.say()
        columns = ("until it works again", "starts", "measured", "p50 s", "p99 s", "longest s", "")
        rows = [[Text(word) for word in (node, *_recovery_words(of), "")] for node, of in self.recovery.items()]
        page.table(columns, rows, right=columns[1:])
        page.say()
        page.say("other faults: ", ", ".join(f"{count} {kind}" for kind, count in self.faults.items()) or "none")
        page.say(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self.counters.items()))
        page.say(
            f"{self.orders:,} orders in {self.phases} audited phases: {self.completed:,} completed,"
            f" {self.compensated:,} compensated, {self.rejected:,} rejected, {self.parked} parked"
        )
        page.say(f"lost {self.lost}, duplicate effects {self.duplicate_effects}, violations {len(self.violations)}")
        return page.text()


def _figure(node: str, place: str, count: int) -> Text:
    """The broker is not ours, and has no boundaries."""
    return Text("-" if node == BROKER and place in BOUNDARIES else str(count))


def _sum(places: Mapping[str, int]) -> Text:
    return Text(str(sum(places.values())), "bold")


def _longest(of: Recoveries) -> dict[str, float]:
    return {"longest": round(max(of.seconds), 2)} if of.seconds else {}


def _recovery_words(of: Mapping[str, float]) -> list[str]:
    counts = [str(of["starts"]), str(of["measured"])]
    return counts + [f"{of[name]:.2f}" if name in of else "-" for name in ("p50", "p99", "longest")]
