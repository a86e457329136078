"""Scenario files whose own code fails while they run: the run stops cleanly, with one line, at once."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

import run_sim
from scenarios import library
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import Conduct
from scenarios.simulation.simulate import simulate
from tests.scenarios.conftest import Sim

STORY = """
import sys
from dataclasses import replace
from scenarios.scenario import Fate, Request, Scenario
from scenarios.shop.domain import SHOP, good, shop_services
from scenarios.shop.payment import PaymentService

IS_NODE = "serve" in sys.argv

{code}

scenario = Scenario("mine", "", replace(SHOP, **domain), load=load, orders=200, concurrency=10, **fields)
"""
DEFAULTS = "load, domain, fields = good, {}, {}\n"

LATE_LOAD = """
def load(random, number):
    if number == 50:
        raise ValueError("out of customers")
    return good(random, number)
domain, fields = {}, {}
"""
LATE_PAYLOAD = """
def load(random, number):
    return Request({"items": {1, 2}}, Fate.COMPLETED) if number == 50 else good(random, number)
domain, fields = {}, {}
"""
AUDIT = (
    DEFAULTS
    + """
def audit(tx, settled):
    raise ValueError("the books are gone")
domain["audit"] = audit
"""
)
LAST_AUDIT = (
    DEFAULTS
    + """
def audit(tx, settled):
    return None if settled else SHOP.audit(tx, settled)
domain["audit"] = audit
"""
)
EXPECTATION = (
    DEFAULTS
    + """
def expectation(result):
    return result.completed / 0
fields["expectations"] = (expectation,)
"""
)
ANSWERING_EXPECTATION = (
    DEFAULTS
    + """
fields["expectations"] = (lambda result: result.completed == 200,)
"""
)
SERVICES_IN_NODE = (
    DEFAULTS
    + """
def services(conducts):
    if IS_NODE:
        raise RuntimeError("no vault in this process")
    return shop_services(conducts)
domain["services"] = services
"""
)
PREPARE = (
    DEFAULTS
    + """
class Payment(PaymentService):
    def prepare(self, transaction):
        raise RuntimeError("the vault is closed")
domain["services"] = lambda conducts: [
    Payment() if service.name == "payment" else service for service in shop_services(conducts)
]
"""
)
CASES = {
    "late load": (LATE_LOAD, "the load's request 50: ValueError: out of customers"),
    "late payload": (LATE_PAYLOAD, "the load's request 50: its payload: a value of type set cannot be encoded"),
    "audit": (AUDIT, "the domain's audit: ValueError: the books are gone"),
    "last audit": (LAST_AUDIT, "audit must give Findings, not None"),
    "expectation": (EXPECTATION, "expectation 1: ZeroDivisionError"),
    "answering expectation": (ANSWERING_EXPECTATION, "expectation 1 must give text or None, not True"),
    "services in a node": (SERVICES_IN_NODE, "no vault in this process"),
    "prepare": (PREPARE, "services does not start: sagasim services: the vault is closed"),
}


@pytest.mark.parametrize(("code", "words"), CASES.values(), ids=CASES.keys())
def test_what_a_scenario_s_own_code_raises_ends_the_run_with_one_line(sim: Sim, code: str, words: str) -> None:
    """Exit status 2 and one line on standard error; no traceback, and no wait for a stall."""
    (sim.home / "mine.py").write_text(STORY.format(code=code))
    done = sim("run", "mine.py", "--seed", "1", "--plain", "--data", "data")
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("code", ["raise OSError('gone')", "return None", "return Request(print, Fate.EITHER)"])
def test_a_load_that_cannot_work_is_found_before_anything_is_made(sim: Sim, code: str) -> None:
    """Its first request is drawn beforehand."""
    load = f"def load(random, number):\n    {code}\ndomain, fields = {{}}, {{}}\n"
    (sim.home / "mine.py").write_text(STORY.format(code=load))
    done = sim("run", "mine.py", "--plain", "--data", "data")
    assert done.returncode == 2
    assert "the load's request 0" in done.stderr
    assert done.stdout == ""
    assert not (sim.home / "data").exists()


def test_a_scenario_without_a_sequential_saga_says_so(sim: Sim) -> None:
    """--sequential asks for a saga of that name, before anything is made."""
    code = DEFAULTS + 'domain["sagas"] = {"order": SHOP.sagas["order"]}'
    (sim.home / "mine.py").write_text(STORY.format(code=code))
    done = sim("run", "mine.py", "--plain", "--data", "data", "--sequential")
    assert (done.returncode, (sim.home / "data").exists()) == (2, False)
    assert "has no saga 'order-sequential' for --sequential" in done.stderr


STATUS = DEFAULTS + 'domain["status"] = lambda tx, saga_id: None\n'
LOST_NEWS = """
from scenarios.scenario import Fault
fields["faults"] = (Fault("messages", at_seconds=0.0, seconds=20.0, detail="lose_publish", value=0.5),)
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (AUDIT, "the domain's audit: ValueError: the books are gone"),
        (LAST_AUDIT, "audit must give Findings, not None"),
        (STATUS + LOST_NEWS, "status must give text, not None"),
    ],
)
def test_in_a_simulation_it_is_the_same_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, words: str
) -> None:
    """What real mode would say of the scenario's own code, before or after the load has ended."""
    (tmp_path / "mine.py").write_text(STORY.format(code=code))
    status = run_sim.main(["run", str(tmp_path / "mine.py"), "--mode", "sim", "--seed", "1"])
    err = capsys.readouterr().err
    assert (status, len(err.splitlines())) == (2, 1), err
    assert words in err


def test_an_order_that_ended_otherwise_says_why() -> None:
    """A handler that faults is found by the line of the first order that it has turned back."""
    scenario = replace(library.find("happy"), conducts={"payment": Conduct(faulty_attempts=1000)})
    result = simulate(scenario, 1, FaultPlan(1, 1))
    assert re.search(r"ended compensated; it must be completed \(\w+ faulted, .*: .*\)", result.violations[0])


STUCK = (
    DEFAULTS
    + """
fields["stall_seconds"] = 1.0
class Payment(PaymentService):
    def prepare(self, transaction): ...
class Orders(type(shop_services({})[0])):
    @action
    def place(self, transaction, command):
        raise LookupError("the shop is closed")
domain["services"] = lambda conducts: [
    Orders() if service.name == "order" else service for service in shop_services(conducts)
]
"""
)
UNKNOWN = DEFAULTS + 'domain["sagas"] = {"other": replace(SHOP.sagas["order"], name="other")}\n'


def test_a_run_that_comes_to_nothing_says_what_its_nodes_warn_of(sim: Sim) -> None:
    """Nobody has to look for the reason in the logs."""
    (sim.home / "mine.py").write_text("from actors.handlers import action\n" + STORY.format(code=STUCK))
    done = sim("run", "mine.py", "--orders", "2", "--plain", "--data", "data")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation: nothing has moved for 1 s; 2 requests wait, first of all " in done.stdout
    assert re.search(r"the latest warnings: .*faulted LookupError: the shop is closed", done.stdout)


def test_a_simulation_says_why_there_are_dead_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A saga that no definition is known of: the line gives the first reason."""
    (tmp_path / "mine.py").write_text(STORY.format(code=UNKNOWN))
    assert run_sim.main(["run", str(tmp_path / "mine.py"), "--mode", "sim", "--orders", "1"]) == 1
    assert "; the first: refused to start: no definition 'order' is known here\n" in capsys.readouterr().out
