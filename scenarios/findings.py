"""What a check of a directory has found: one line each, with what to do about it."""

from collections import Counter
from dataclasses import dataclass, field

SHOWN_OF_A_KIND = 20  # the first of many tell as much as all

RESTORE = "no crash leaves this behind: restore a backup, and keep this directory to find out why"
DIFFERENT_TIMES = "the two databases are not of one time: restore both from the same backup"


@dataclass(frozen=True, slots=True)
class Finding:
    """`node` is whose database it was found in, `kind` what findings of its like are called."""

    node: str
    kind: str
    what: str
    to_do: str

    def __str__(self) -> str:
        line = f"{self.node}: {self.what}; {self.to_do}"
        return "".join(c if c.isprintable() else " " for c in line)


@dataclass(slots=True)
class Findings:
    """`looked_at` counts what was checked; `notes` say what could not be."""

    shown: list[Finding] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    looked_at: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.kinds.total()

    def add(self, node: str, kind: str, what: str, to_do: str) -> None:
        self.kinds[node, kind] += 1
        if self.kinds[node, kind] <= SHOWN_OF_A_KIND:
            self.shown.append(Finding(node, kind, what, to_do))

    def left_out(self) -> list[str]:
        """A line a kind of which not all are shown."""
        return [
            f"{node}: and {count - SHOWN_OF_A_KIND:,} more: {kind}"
            for (node, kind), count in sorted(self.kinds.items())
            if count > SHOWN_OF_A_KIND
        ]
