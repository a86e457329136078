"""One saga's journal as a Mermaid sequence diagram: who was asked, who answered, and what befell the saga."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from actors.record import Entry
from scenarios.scenario import COORDINATOR_NAME
from scenarios.timeline import ANSWERS

SERVICES = "services"  # whoever executes a step that is not known here
OPERATOR = "operator"
CLIENT = "client"
_ASKS = {"cancel": OPERATOR, "resume": OPERATOR}
MAX_TEXT_CHARS = 80


def sequence_diagram(
    definition: str, sender: str, created_at: float, entries: Sequence[tuple[int, Entry]], services: Mapping[str, str]
) -> list[str]:
    """Lines of Mermaid. `services` names the service of each step; `sender` is the one that started the saga.

    The journal knows when the coordinator decided and heard: that is what the seconds at each arrow count.
    """
    arrows = [
        arrow for _, entry in entries for arrow in _arrows(definition, sender or CLIENT, entry, created_at, services)
    ]
    parties = list(dict.fromkeys(party for arrow in arrows for party in (arrow.source, arrow.target) if party))
    names = {party: f"p{i}" for i, party in enumerate(parties)}
    lines = ["sequenceDiagram", *(f"    participant {name} as {_clean(party)}" for party, name in names.items())]
    for source, target, text, is_answer in arrows:
        if target:
            lines.append(f"    {names[source]}{'-->>' if is_answer else '->>'}{names[target]}: {_clean(text)}")
        else:
            lines.append(f"    Note over {names[source]}: {_clean(text)}")
    return lines


class _Arrow(NamedTuple):
    """A message from one party to another; without a target, a note about the source."""

    source: str
    target: str
    text: str
    is_answer: bool = False


def _arrows(
    definition: str, sender: str, entry: Entry, created_at: float, services: Mapping[str, str]
) -> Iterator[_Arrow]:
    """What one transition has heard and sent."""
    main, at, step = COORDINATOR_NAME, f"+{entry.at_seconds - created_at:.3f} s", entry.step
    asked = f"undo {step}" if entry.verb == "undo" else step
    tried = f", attempt {entry.attempt}" if entry.attempt > 1 else ""
    if entry.event == "timedout":
        yield _Arrow(main, "", f"{at} {asked}{tried}: no answer")
    elif entry.event in ANSWERS:
        why = f": {entry.detail}" if entry.event in ("refused", "faulted") and entry.detail else ""
        yield _Arrow(services.get(step, SERVICES), main, f"{at} {asked}{tried} {entry.event}{why}", is_answer=True)
    elif entry.event == "begin":
        yield _Arrow(sender, main, f"{at} start {definition}")
    elif entry.event in _ASKS:
        yield _Arrow(_ASKS[entry.event], main, f"{at} {entry.event}")
    else:
        yield _Arrow(main, "", f"{at} {entry.event} {entry.detail}")
    told = [notice for notice in entry.notices if notice != "started"]
    if told:
        yield _Arrow(main, "", f"{at} {', '.join(told)}")
    for sent in entry.sent:
        yield _Arrow(main, services.get(sent.partition(" ")[2], SERVICES), f"{at} {sent}")


def _clean(text: str) -> str:
    """What Mermaid takes as text: one line, without the characters that end or number it."""
    plain = "".join(c if c.isprintable() and c not in ";#" else " " for c in text)
    return plain[:MAX_TEXT_CHARS].strip() or "-"
