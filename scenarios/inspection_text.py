"""What was found in a run's directory, for people: sagas by state, and one page for all that `inspect` can show."""

import time
from pathlib import Path

from rich.text import Text

from scenarios.glyphs import PHASE_STYLES, Glyphs, counted
from scenarios.inspection import Inspector, Overview, Row
from scenarios.inspection_json import as_json, difference_json, life_json, overview_json
from scenarios.inspection_words import ACTIVE, FINISHED, JSON, MERMAID, PARKED, STALLED, TEXT, UNREADABLE
from scenarios.life_text import difference_text, life_mermaid, life_text
from scenarios.page import Page, age
from scenarios.scenario import ScenarioError


def inspect(
    data: Path,
    saga_id: str | None = None,
    *,
    scenario: str | None = None,
    state: str | None = None,
    since_seconds: float | None = None,
    limit: int = 20,
    difference: tuple[int, int] | None = None,
    form: str = TEXT,
) -> str:
    """What `sagasim inspect` prints. Raises ScenarioError or StorageError, in one line."""
    _check_words(saga_id, state, since_seconds, difference, form)
    inspector = Inspector.open(data, scenario)
    try:
        if saga_id is None:
            overview = inspector.overview(state=state, limit=limit, since_seconds=since_seconds)
            return as_json(overview_json(overview)) if form == JSON else overview_text(overview, state)
        if difference is not None:
            found = inspector.difference(saga_id, *difference)
            return as_json(difference_json(found)) if form == JSON else difference_text(found)
        life = inspector.life(saga_id)
        if form == MERMAID:
            return life_mermaid(life)
        return as_json(life_json(life)) if form == JSON else life_text(life)
    finally:
        inspector.close()


def _check_words(
    saga_id: str | None,
    state: str | None,
    since_seconds: float | None,
    difference: tuple[int, int] | None,
    form: str,
) -> None:
    if saga_id is None:
        for word, given in (("--diff", difference is not None), ("--mermaid", form == MERMAID)):
            if given:
                raise ScenarioError(f"{word} goes with a SAGA_ID")
        return
    for word, given in (("--state", state is not None), ("--since", since_seconds is not None)):
        if given:
            raise ScenarioError(f"{word} goes without a SAGA_ID")
    if difference is not None and form == MERMAID:
        raise ScenarioError("--mermaid goes without --diff")


# --- all sagas -------------------------------------------------------------------------------------------------


def overview_text(found: Overview, state: str | None) -> str:
    page = Page()
    glyphs = page.glyphs
    page.say(glyphs.text(found.data))
    page.say(_counts(found, glyphs))
    recently = "" if found.since_seconds is None else f" that has changed in the last {age(found.since_seconds)}"
    if recently:
        page.say(f"(of those{recently})".replace(" has ", " have "))
    if not found.is_whole:
        page.say(f"(how they ended is told of the latest {found.counted_finished:,} finished ones)")
    if state not in (PARKED, STALLED):
        _section(page, "parked", found.parked, found.counts[PARKED])
        _section(page, "stalled", found.stalled, found.counts[STALLED])
    if state is None:
        _section(page, "latest", found.sagas, found.counts[ACTIVE] + found.counts[FINISHED])
    else:
        _section(page, state, found.sagas, found.counts[state])
        if not found.sagas:
            page.say(f"no saga{recently} is {state}")
    if found.sagas:
        page.say("")
        page.say(Text("  ".join(glyphs.legend()), "dim"))
    return page.text()


def _counts(found: Overview, glyphs: Glyphs) -> Text:
    order = [PARKED, STALLED, UNREADABLE]
    phases = sorted(set(found.counts) - {*order, ACTIVE, FINISHED})
    parts = [counted(found.counts[name], name) for name in (ACTIVE, FINISHED)]
    parts += [
        counted(found.counts[name], name, PHASE_STYLES.get(name, "")) for name in phases + order if found.counts[name]
    ]
    return glyphs.joined(*parts)


def _section(page: Page, title: str, rows: list[Row], total: int) -> None:
    if not rows:
        return
    page.say("")
    more = f"  {len(rows)} of {total:,}; --limit shows more" if len(rows) < total else f"  {total:,}"
    page.say((title, "bold"), (more, "dim"))
    page.table(
        ("saga", "state", "age", "steps", "definition", "reason"),
        [_cells(row, page.glyphs) for row in rows],
        right=("age",),
    )


def _cells(row: Row, glyphs: Glyphs) -> list[Text]:
    return [
        glyphs.text(row.saga_id),
        Text(row.states[0], PHASE_STYLES.get(row.states[0], "")),
        Text(age(time.time() - row.created_at) if row.created_at else ""),
        Text.assemble(*(glyphs.step(status) for _, status in row.steps)),
        glyphs.text(row.definition),
        glyphs.text(row.reason),
    ]
