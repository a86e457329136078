"""The exhaustive check: every world that one saga, its services and a network that may do anything can reach.

A shape is written step by step: its kind (c, p, r) and the steps that it needs by number, as in `c c p01 r2`. The
rows below are all graphs of up to four steps, without edges that add nothing (`test_redundant_edges` holds that they
add nothing). A number is the exact count of worlds, with `interrupt` and with `drain`: a model that silently shrank
fails. The run `once` is always made; of the others those from `SOAK_FROM` worlds on only by `make test-long`, which
sets SAGASIM_SOAK. A dash is a run that is too large even for that.
"""

import os
from collections.abc import Iterator
from itertools import combinations, permutations, product
from typing import Any

import pytest

from actors import machine, participant
from actors.definition import DefinitionError, Kind, Retry, Saga, Siblings, Step
from actors.machine import TABLE, Decision, Rule, Signal
from actors.participant import Answer, Entry, Run
from actors.state import Answered, Event, Notice, Outcome, Send, State, Status, TimedOut, Verb
from tests.actors.model import Bounds, Checker, Decide, Owed, Report, ViolationError

SOAK_FROM = 30_000
IS_SOAK = bool(os.environ.get("SAGASIM_SOAK"))

RUNS = {  # the attempts of each step, and what may happen besides
    "once": (1, Bounds(twins=True)),
    "twice": (2, Bounds(twins=True)),
    "resumed": (1, Bounds(twins=True, resumes=1, refuse_all=True)),
    "gaps": (1, Bounds(twins=True, gaps=True)),
    "held": (1, Bounds(twins=True, resumes=1, holds=True)),
    "faults": (1, Bounds(twins=True, faults=True)),
}
COUNTS = """
shape                   once           twice         resumed            gaps            held          faults
c                      43/47           70/78         125/129           92/97         238/252         116/124
p                      41/45           68/76           75/79           95/99         220/234           80/88
c c                  525/621       1372/1631       5322/5541       2495/2792       5061/5511       4224/4700
c c0                 146/161         402/448         749/795         309/329         908/976       1122/1206
c p0                 144/159         398/444         619/665         350/359         890/958         810/894
p r0                   53/57         110/118         167/171         122/126         311/325         134/142
c c c              4411/5363     18102/22262   142212/149683     41715/50305     75006/82656    99338/112570
c c c1             3712/4585     16565/20306     64690/73170     17190/20086     42818/49338    85138/100090
c c c01             880/1015       3157/3616     13495/14497       3407/3774       8772/9565     18213/19763
c c0 c1              375/415       1858/2068       2917/3141         782/837       2740/2968      9374/10090
c c0 c0              775/980       4084/5149       8624/9657       3169/3696       7372/8592     15938/19388
c c p01             878/1013       3151/3610     12925/13927       3648/3949       8754/9547     13905/15455
c c0 p1              373/413       1850/2060       2627/2851         899/923       2722/2950       6830/7546
c p0 r1              156/171         482/528         711/757         377/386        981/1049        918/1002
p r0 r1                65/69         194/202         322/326         149/153         426/440         242/250
p r0 r0                83/87         278/286       1276/1280         227/231         678/692         404/412
c c c c          27682/34722   175637/225507               -               -               -               -
c c c c2         45387/58408   322549/417294               -               -               -               -
c c c c12        21875/27268   128306/159621               -               -               -               -
c c c1 c2         9730/12282     78165/97212               -               -               -               -
c c c1 c1        18655/24538   156887/207936               -               -               -               -
c c c c012         5522/6597     26488/31582               -               -               -               -
c c c1 c0        13491/17652   102161/131633               -               -               -               -
c c c1 c02         5327/6379     33337/38946               -               -               -               -
c c c1 c01        9534/12716    76317/100248               -               -               -               -
c c c01 c2         1613/1829     10489/11766               -               -               -               -
c c c01 c01        2097/2814     15687/21035               -               -               -               -
c c0 c1 c2           856/949       7938/8828               -               -               -               -
c c0 c1 c1         1298/1724     13534/17850               -               -               -               -
c c0 c1 c0         4928/6414     45514/58284               -               -               -               -
c c0 c0 c12        1319/1584      9634/11319               -               -               -               -
c c0 c0 c0         4941/6282     41548/53671               -               -               -               -
c c c p012         5520/6595     26480/31574   240495/258629     46388/54982    93688/103198   207286/232510
c c c1 p02         5325/6377     33321/38930   128898/144206     22818/25718     65676/74424   260714/295170
c c c01 p2         1611/1827     10477/11754     32561/35553       5787/6158     17658/19299    95895/106073
c c0 c1 p2           854/947       7922/8812       8643/9437       2036/2095       7346/7998     55350/61170
c c0 c0 p12        1317/1582      9622/11307     20463/22723       4820/5351     13276/15050     54740/62498
c c p01 r2          890/1025       3277/3736     13017/14019       3675/3976       8845/9638     14067/15617
c c0 p1 r2           385/425       2018/2228       2719/2943         926/950       2813/3041       7046/7762
c p0 r1 r2           168/183         650/696         866/912         404/413       1096/1164       1134/1218
c p0 r1 r1           186/201         818/864       1820/1866         482/491       1348/1416       1458/1542
p r0 r1 r2             77/81         362/370         540/544         176/180         565/579         458/466
p r0 r1 r1             95/99         530/538       1683/1687         254/258         853/867         782/790
p r0 r1 r0           173/177       1118/1126       6304/6308         542/546       2019/2033       1754/1762
p r0 r0 r12            95/99         404/412       1557/1561         254/258         817/831         566/574
p r0 r0 r0           143/147         782/790     11272/11276         535/539       1865/1879       1394/1402
"""
KINDS = {"c": Kind.COMPENSATABLE, "p": Kind.PIVOT, "r": Kind.RETRIABLE}


def saga(shape: str, attempts: int = 1, siblings: Siblings = Siblings.INTERRUPT) -> Saga:
    retry = Retry(attempts=attempts)
    steps = tuple(
        Step(
            name=f"s{i}",
            service="service",
            action="act",
            compensation="undo" if word[0] == "c" else None,
            after=tuple(f"s{needed}" for needed in word[1:]),
            kind=KINDS[word[0]],
            retry=retry,
            undo_retry=retry,
        )
        for i, word in enumerate(shape.split())
    )
    return Saga("shape", steps, siblings=siblings)


def shapes(size: int) -> Iterator[tuple[str, str]]:
    """Every valid graph of so many steps, once for all its numberings, and the same without redundant edges."""
    pairs = list(combinations(range(size), 2))
    known = set()
    for kinds in product("cpr", repeat=size):
        if list(kinds) != sorted(kinds):
            continue  # each graph has a numbering that goes by kind
        for chosen in product((False, True), repeat=len(pairs)):
            edges = {pair for pair, is_in in zip(pairs, chosen, strict=True) if is_in}
            shape = written(kinds, edges)
            try:
                saga(shape)
            except DefinitionError:
                continue
            key = min(renumbered(kinds, edges, order) for order in permutations(range(size)))
            if key not in known:
                known.add(key)
                yield shape, written(kinds, {edge for edge in edges if not is_redundant(edge, edges)})


def written(kinds: tuple[str, ...], edges: set[tuple[int, int]]) -> str:
    return " ".join(kind + "".join(str(a) for a, b in sorted(edges) if b == i) for i, kind in enumerate(kinds))


def renumbered(
    kinds: tuple[str, ...], edges: set[tuple[int, int]], order: tuple[int, ...]
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """The graph with step `i` called `order[i]`."""
    kinds_now = tuple(kinds[order.index(i)] for i in range(len(kinds)))
    return kinds_now, tuple(sorted((order[a], order[b]) for a, b in edges))


def is_redundant(edge: tuple[int, int], edges: set[tuple[int, int]]) -> bool:
    """Whether a longer way leads from its first step to its last."""
    first, last = edge
    reached = {b for a, b in edges if a == first and b != last}
    while more := {b for a, b in edges if a in reached} - reached:
        reached |= more
    return last in reached


def cases() -> Iterator[tuple[str, str, tuple[int, int]]]:
    """The rows of COUNTS, cell by cell: a shape, the name of a run, its counts."""
    head, *rows = COUNTS.strip().splitlines()
    for row in rows:
        shape, cells = row[:12].strip(), row[12:].split()
        for run, cell in zip(head.split()[1:], cells, strict=True):
            if cell != "-":
                interrupt, drain = cell.split("/")
                yield shape, run, (int(interrupt), int(drain))


def explore(shape: str, run: str, siblings: Siblings) -> Report:
    attempts, bounds = RUNS[run]
    return Checker(saga(shape, attempts, siblings), bounds).run()


def due(run: str, counts: tuple[int, int]) -> bool:
    return IS_SOAK or run == "once" or max(counts) < SOAK_FROM


@pytest.mark.parametrize(
    ("shape", "run", "counts"),
    [pytest.param(*case, id=f"{case[0]}, {case[1]}") for case in cases() if due(*case[1:])],
)
def test_every_world_of_every_shape(shape: str, run: str, counts: tuple[int, int]) -> None:
    """Whatever happens in a saga of this shape, each property holds, and both ends can be reached."""
    reports = [explore(shape, run, siblings) for siblings in Siblings]
    assert tuple(report.worlds for report in reports) == counts
    for report in reports:
        assert {"completed", "compensated", "parked", "cancel-too-late", "a do met a tombstone"} <= report.seen


def test_no_shape_is_missing() -> None:
    """The table holds every valid graph of one to four steps, of every kind, and none twice."""
    written_down = {shape for shape, _, _ in cases()}
    assert written_down == {shape for size in range(1, 5) for shape, reduced in shapes(size) if shape == reduced}
    assert len(written_down) == 2 + 4 + 10 + 30


@pytest.mark.parametrize(
    ("shape", "reduced"), [pair for size in (3, 4) for pair in shapes(size) if pair[0] != pair[1]], ids=str
)
def test_redundant_edges(shape: str, reduced: str) -> None:
    """To need a step that another needed step needs anyway changes nothing."""
    for siblings in Siblings:
        given, same = (Checker(saga(name, 1, siblings), Bounds()).run() for name in (shape, reduced))
        assert given == same


@pytest.mark.parametrize(
    ("shape", "counts"), [("c c p01 r2", (1643, 1898)), ("c c0 c0 c12", (2317, 2807)), ("p r0 r0 r0", (413, 417))]
)
def test_twins_lose_nothing(shape: str, counts: tuple[int, int]) -> None:
    """Counting like steps apart finds more worlds and nothing new in them."""
    for siblings, count in zip(Siblings, counts, strict=True):
        full = Checker(saga(shape, 1, siblings), Bounds()).run()
        assert full.worlds == count
        assert full.seen == explore(shape, "once", siblings).seen


def test_everything_happens() -> None:
    """What must never go wrong is tried in earnest: each memorable thing happens in a small saga with a pivot."""
    expected = {
        *(notice.value for notice in Notice),
        "a do met a tombstone",
        "an unknown pivot went back",
        "an unknown pivot went forward",
        "resumed",
        "undos in parallel",
    }
    for siblings in Siblings:
        assert explore("c c p01", "resumed", siblings).seen == expected


# --- the saga of the example domain --------------------------------------------------------------------------------


def order(attempts: int, siblings: Siblings) -> Saga:
    """The saga `order` as section 5 of the design has it."""
    retry = Retry(attempts=attempts)

    def step(name: str, service: str, undo: str | None, kind: Kind, *after: str) -> Step:
        return Step(name, service, name, undo, after, kind, retry=retry, undo_retry=retry)

    before = ("open", "reserve", "authorize", "prepare")
    steps = (
        step("open", "order", "cancel", Kind.COMPENSATABLE),
        step("reserve", "inventory", "release", Kind.COMPENSATABLE),
        step("authorize", "payment", "void", Kind.COMPENSATABLE),
        step("prepare", "shipping", "cancel", Kind.COMPENSATABLE),
        step("confirm", "order", None, Kind.PIVOT, *before),
        step("commit_stock", "inventory", None, Kind.RETRIABLE, "confirm"),
        step("capture", "payment", None, Kind.RETRIABLE, "confirm"),
        step("dispatch", "shipping", None, Kind.RETRIABLE, "confirm"),
    )
    return Saga("order", steps, siblings=siblings)


ORDER = {"once": (30783, 38156), "twice": (212202, 265742), "gaps": (508413, 668982)}


@pytest.mark.parametrize("run", [run for run, counts in ORDER.items() if due(run, counts)])
def test_every_world_of_order(run: str) -> None:
    """The order saga keeps every property in every world. Its attempts are bounded by one, under soak by two."""
    attempts, bounds = RUNS[run]
    reports = [Checker(order(attempts, siblings), bounds).run() for siblings in Siblings]
    assert tuple(report.worlds for report in reports) == ORDER[run]
    for report in reports:
        assert report.seen >= {"completed", "compensated", "undos in parallel", "an unknown pivot went forward"}


# --- the table is as large as it must be ---------------------------------------------------------------------------


def test_every_cell_of_the_table_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cell of the machine's table stands for something that cannot happen, save one that pruning can cause."""
    reached: set[tuple[Status, Signal]] = set()

    def recording(cell: tuple[Status, Signal], rule: Rule) -> Rule:
        def recorded(*arguments: Any) -> bool:
            reached.add(cell)
            return rule(*arguments)

        return recorded

    cells = {(status, signal): rule for status, row in TABLE.items() for signal, rule in row.items()}
    for (status, signal), rule in cells.items():
        monkeypatch.setitem(TABLE[status], signal, recording((status, signal), rule))
    for siblings in Siblings:
        Checker(saga("c p0 r1", 1, siblings), Bounds(resumes=1, refuse_all=True, faults=True)).run()
        Checker(saga("c c", 1, siblings), Bounds(faults=True)).run()
    # A service that has pruned its ledger refuses any late command, even a do that it has done.
    assert cells.keys() - reached == {(Status.UNDO_REFUSED, Signal.DO_REFUSED)}


# --- the checker has teeth -----------------------------------------------------------------------------------------


def no_ledger(entry: Entry | None, verb: Verb, round_: int, settles: bool) -> Answer | Run:
    return participant.owed(None if verb is Verb.DO else entry, verb, round_, settles)


def no_tombstone(entry: Entry | None, verb: Verb, round_: int, settles: bool) -> Answer | Run:
    due = participant.owed(entry, verb, round_, settles)
    return due._replace(entry=None) if isinstance(due, Answer) else due


def unsettled_pivot(entry: Entry | None, verb: Verb, round_: int, settles: bool) -> Answer | Run:
    due = participant.owed(entry, verb, round_, settles)
    return Answer(Outcome.DONE, None) if isinstance(due, Answer) and due.outcome is Outcome.KEPT else due


def undone_pivot(entry: Entry | None, verb: Verb, round_: int, _settles: bool) -> Answer | Run:
    return participant.owed(entry, verb, round_, False)


@pytest.mark.parametrize(
    ("owed", "problem"),
    [
        (no_ledger, "a step is done twice"),
        (no_tombstone, "a step counts as clean and is not"),
        (unsettled_pivot, "a step counts as clean and is not"),
        (undone_pivot, "a step is undone after the pivot"),
    ],
)
@pytest.mark.parametrize("siblings", Siblings)
def test_a_service_that_neglects_a_rule_is_found(owed: Owed, problem: str, siblings: Siblings) -> None:
    """Without ledger or tombstones, or with a pivot that is not settled, the checker names what breaks."""
    with pytest.raises(ViolationError, match=problem):
        Checker(saga("c p0", 1, siblings), Bounds(), owed=owed).run()


def timeout_is_refusal(definition: Saga, state: State, event: Event) -> Decision:
    if isinstance(event, TimedOut) and event.verb is Verb.DO:
        event = Answered(*event, Outcome.REFUSED)
    return machine.decide(definition, state, event)


def deaf_to_undone(definition: Saga, state: State, event: Event) -> Decision:
    is_undone = isinstance(event, Answered) and (event.verb, event.outcome) == (Verb.UNDO, Outcome.DONE)
    return Decision(state, ()) if is_undone else machine.decide(definition, state, event)


def forgets_why(definition: Saga, state: State, event: Event) -> Decision:
    after, effects = machine.decide(definition, state, event)
    return Decision(state if after == state else after._replace(failure=None), effects)


def forgets_to_send(definition: Saga, state: State, event: Event) -> Decision:
    after, effects = machine.decide(definition, state, event)
    return Decision(after, tuple(effect for effect in effects if not isinstance(effect, Send) or not effect.retry))


@pytest.mark.parametrize(
    ("decide", "problem"),
    [
        (timeout_is_refusal, "a step counts as clean and is not"),
        (deaf_to_undone, "can neither end nor park"),
        (forgets_why, "an undo without a recorded failure"),
        (forgets_to_send, "what it sends is not what it has come to wait for"),
    ],
)
@pytest.mark.parametrize("siblings", Siblings)
def test_a_coordinator_that_neglects_a_rule_is_found(decide: Decide, problem: str, siblings: Siblings) -> None:
    """With a timeout taken for a refusal, an answer unheard or a retry unsent, the checker names what breaks."""
    with pytest.raises(ViolationError, match=problem):
        Checker(saga("c p0", 2, siblings), Bounds(), decide=decide).run()


def test_undoing_in_the_wrong_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A saga that undoes a step before those that depend on it breaks rule 6."""

    def undo_all_at_once(draft: machine._Draft) -> None:
        for i, step in enumerate(draft.steps):
            if step.status in (Status.DONE, Status.UNKNOWN):
                draft.ask(i, Verb.UNDO)

    monkeypatch.setattr(machine, "_go_back", undo_all_at_once)
    with pytest.raises(ViolationError, match="a step is undone before one that depends on it"):
        Checker(saga("c c0"), Bounds()).run()


@pytest.mark.parametrize("siblings", Siblings)
def test_a_cell_too_few_is_found(siblings: Siblings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late message for which the table has no cell is reported as possible after all."""
    monkeypatch.delitem(TABLE[Status.UNDONE], Signal.DO_DONE)
    with pytest.raises(ViolationError, match=r"possible after all: .*DO_DONE of round 0"):
        Checker(saga("c", 1, siblings), Bounds()).run()


def test_a_violation_tells_how_it_came() -> None:
    """The report reads as a shortest list of moves from the start, with what broke first."""
    with pytest.raises(ViolationError) as caught:
        Checker(saga("c p0"), Bounds(), owed=no_tombstone).run()
    assert str(caught.value).splitlines() == [
        "saga 'shape' (interrupt): a step counts as clean and is not; it came so:",
        "   1. the saga is told to begin",
        "   2. do s0 (round 0, attempt 1) times out",
        "   3. undo s0 (round 0) arrives, and the ledger answers DONE",
        "   4. do s0 (round 0) arrives, and is done",
        "   5. the saga hears that undo s0 (round 0) is DONE",
    ]
