"""What a soak draws: kills at every boundary, of everything, and some of all that can be done to real processes."""

from collections import Counter

from scenarios import library
from scenarios.chaos.drawing import draw_phase
from scenarios.chaos.faults import REAL
from scenarios.places import BOUNDARIES, COORDINATOR, SERVICES
from scenarios.stories import SOAKED

SCENARIO = library.find(SOAKED)
SECONDS = 45.0
PHASES = [draw_phase(SCENARIO, 1, number, SECONDS) for number in range(1, 201)]
ALL = [fault for phase in PHASES for fault in phase]


def test_a_seed_says_what_a_phase_brings() -> None:
    """The same seed draws the same phase again; another phase, or another seed, brings something else."""
    assert draw_phase(SCENARIO, 1, 7, SECONDS) == PHASES[6]
    assert draw_phase(SCENARIO, 1, 8, SECONDS) != PHASES[6]
    assert draw_phase(SCENARIO, 2, 7, SECONDS) != PHASES[6]


def test_every_phase_kills_both_nodes_and_the_broker() -> None:
    """At boundaries and by the clock, more often than once in two seconds, if each kill comes."""
    for phase in PHASES:
        kinds = Counter(fault.kind for fault in phase)
        assert {fault.target for fault in phase if fault.kind == "boundary"} == {COORDINATOR, SERVICES}
        assert kinds["broker-crash"] >= 1
        assert kinds["boundary"] + kinds["crash"] + kinds["broker-crash"] >= SECONDS / 2


def test_all_that_can_be_done_to_real_processes_is_drawn() -> None:
    """Each boundary of each node, each way to lose the broker, each trouble of the network, of disks and services."""
    drawn = {(fault.kind, fault.target if fault.kind == "boundary" else "", fault.detail) for fault in ALL}
    assert drawn >= {("boundary", node, boundary) for node in (COORDINATOR, SERVICES) for boundary in BOUNDARIES}
    assert drawn >= {("broker-crash", "", detail) for detail in ("keep", "wipe")}
    assert drawn >= {("partition", "", detail) for detail in ("both", "out", "in", "cut", "reset")}
    kinds = {"messages", "delay", "narrow", "crash", "pause", "zombie", "disk", "throws", "refuses", "slow"}
    assert {fault.kind for fault in ALL} == kinds | {"boundary", "broker-crash", "partition", "starts", "garbage"}
    assert {fault.target for fault in ALL if fault.kind == "pause"} == {COORDINATOR, SERVICES, "broker"}


def test_nothing_is_drawn_that_cannot_come() -> None:
    """No fault begins after the phase, none lasts much longer than a third of it, and each is one for real mode."""
    assert not any(fault.why_not(REAL) for fault in ALL)
    assert max(fault.at_seconds for fault in ALL) <= SECONDS
    assert max(fault.seconds for fault in ALL) <= SECONDS / 3 + 2
    brief = draw_phase(SCENARIO, 1, 1, 5.0)
    assert {"boundary", "crash", "broker-crash"} <= {fault.kind for fault in brief}
    assert max(fault.at_seconds for fault in brief) <= 5.0
