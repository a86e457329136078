"""Tells the story of a life as a sequence diagram, in text or as Mermaid: a saga's messages, and what befell it."""

from collections.abc import Iterable, Sequence

from scenarios.scenario import COORDINATOR_NAME
from scenarios.simulation.result import SimResult
from scenarios.simulation.trace import Happening

WIDTH = 24
_MARKS = {"crashes", "starts", "pauses", "wakes", "succeeds", "fault", "heals"}


def sagas_of(result: SimResult, happenings: Iterable[Happening], limit: int = 3) -> list[str]:
    """The sagas that a failure is about; without one, those that have most to tell."""
    lengths: dict[str, int] = {}
    for happening in happenings:
        if happening.saga_id:
            lengths[happening.saga_id] = lengths.get(happening.saga_id, 0) + 1
    named = [saga_id for saga_id in lengths if any(saga_id in violation for violation in result.violations)]
    return (named or sorted(lengths, key=lambda saga_id: (-lengths[saga_id], saga_id)))[:limit]


def story(happenings: Sequence[Happening], saga_id: str) -> list[Happening]:
    """What concerns a saga: its messages as they are sent and heard, and everything done to nodes."""
    return [
        happening
        for happening in happenings
        if (happening.saga_id == saga_id and happening.what in ("sends", "hears")) or happening.what in _MARKS
    ]


def as_text(happenings: Sequence[Happening], saga_id: str) -> list[str]:
    """One column a party, one line a message: `o---` where it is sent and lost, `--->` where it arrives."""
    told = story(happenings, saga_id)
    arrows = list(_arrows(told))
    parties = _parties(arrows)
    columns = {party: i for i, party in enumerate(parties)}
    lines = [f"saga {saga_id}", " " * 13 + "".join(party.ljust(WIDTH) for party in parties)]
    for happening, source, target in arrows:
        if not source:
            lines.append(
                f"{happening.at:11.6f}  {f' {happening.node} {happening.what} {happening.text} '.center(60, '=')}"
            )
        elif happening.what == "sends" and source != target:
            lines.append(_row(happening.at, columns, source, source, f"o {happening.text}"))
        else:
            lines.append(_row(happening.at, columns, source, target, happening.text))
    return lines


def as_mermaid(happenings: Sequence[Happening], saga_id: str) -> list[str]:
    """Each message where it arrives; one that never does ends in a cross, where it was sent."""
    arrows = list(_arrows(story(happenings, saga_id)))
    parties = _parties(arrows)
    heard = {_plain(happening.text) for happening, _, _ in arrows if happening.what == "hears"}
    lines = ["sequenceDiagram", *(f"    participant {party}" for party in parties)]
    for happening, source, target in arrows:
        text = f"{happening.at:.3f} s {happening.text.replace(';', ',').replace('#', '')}"
        if not source:
            over = f"{parties[0]},{parties[-1]}" if len(parties) > 1 else (parties or ["world"])[0]
            what = f"{happening.at:.3f} s {happening.node} {happening.what} {happening.text}"
            lines.append(f"    Note over {over}: {what.replace(';', ',').replace('#', '').rstrip()}")
        elif happening.what == "hears":
            lines.append(f"    {source}->>{target}: {text}")
        elif _plain(happening.text) not in heard:
            lines.append(f"    {source}-x{target}: {text}")
    return lines


def _arrows(told: Sequence[Happening]) -> Iterable[tuple[Happening, str, str]]:
    """Each happening with who sent it and whom it is for; both are empty for what befalls a node.

    A reply does not say who sends it: that is whoever was sent the command.
    """
    doers: dict[str, str] = {}  # the service of each step: several may be one node
    for happening in told:
        if happening.what in _MARKS:
            yield happening, "", ""
            continue
        words = happening.text.replace(",", " ").split()
        if words[0] in ("do", "undo") and words[1] != "of":
            doers[words[1]] = happening.target
        step = words[2] if words[:2] == ["undo", "of"] else words[0]
        yield happening, happening.source or doers.get(step, happening.node), happening.target


def _plain(text: str) -> str:
    return text.partition(" (delivery")[0]


def _parties(arrows: Sequence[tuple[Happening, str, str]]) -> list[str]:
    found = {name for _, source, target in arrows for name in (source, target) if name}
    first = [name for name in ("client", "operator", COORDINATOR_NAME) if name in found]
    return first + sorted(found - set(first))


def _row(at: float, columns: dict[str, int], source: str, target: str, text: str) -> str:
    """A line with a text in its sender's column, or an arrow from there to its receiver's."""
    left, right = sorted((columns[source], columns[target]))
    before = " " * (WIDTH * left)
    if left == right:
        return f"{at:11.6f}  {before}{text}"
    length = WIDTH * (right - left) - 2
    body = f" {text[: length - 4]} ".center(length, "-")
    return f"{at:11.6f}  {before}{f'{body}>' if columns[source] < columns[target] else f'<{body}'}"
