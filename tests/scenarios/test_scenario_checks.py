"""What is wrong with a scenario is found when it is built or loaded, and said in one line."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from scenarios import library
from scenarios.load import draw
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Conduct, Fault, Kill, Request, Scenario, ScenarioError
from scenarios.shop.domain import SHOP, good
from scenarios.stories import happy

AT = "commit.after"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"at_seconds": -1.0}, "at_seconds must be a time of 0 or more, not -1.0"),
        ({"at_seconds": float("nan")}, "at_seconds must be a time"),
        ({"at_seconds": "1"}, "at_seconds must be a time of 0 or more, not '1'"),
        ({"at_seconds": 1.0, "down_seconds": -0.1}, "down_seconds must be a time"),
        ({"at_seconds": 1.0, "down_seconds": None}, "down_seconds must be a time"),
        ({"after_requests": -1}, "after_requests must be a whole number of 0 or more"),
        ({"after_requests": 1.5}, "after_requests must be a whole number"),
        ({"after_transitions": True}, "after_transitions must be a whole number"),
        ({"boundary": AT, "occurrence": 0}, "occurrence must be a whole number of 1 or more"),
        ({"boundary": AT, "step": None}, "step must be text, not None"),
        ({"boundary": "commit"}, "there is no boundary 'commit'"),
        ({"boundary": 7}, "there is no boundary 7"),
        ({"at_seconds": 1.0, "step": "capture"}, "step and occurrence go with a boundary"),
        ({}, "a kill needs one of"),
    ],
)
def test_a_kill_that_cannot_be_is_refused_when_it_is_built(fields: dict[str, Any], words: str) -> None:
    """Wrong types, negative times and counts, and conditions that do not go together."""
    with pytest.raises(ScenarioError, match=words):
        Kill(COORDINATOR, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "flood"}, "there is no fault 'flood'; there are messages, delay, "),
        ({"kind": "crash"}, "a fault 'crash' names a node, not ''"),
        ({"kind": "delay", "target": COORDINATOR}, "a fault 'delay' names no target, not 'coordinator'"),
        ({"kind": "crash", "target": 5}, "its target must be text, not 5"),
        ({"kind": "partition", "target": SERVICES}, "has no detail ''; there are: both, out, in, cut, reset"),
        ({"kind": "delay", "detail": "long"}, "has no detail 'long'; there are: none"),
        ({"kind": "delay", "at_seconds": -1.0}, "at_seconds must be a time of 0 or more, not -1.0"),
        ({"kind": "delay", "seconds": "1"}, "seconds must be a time of 0 or more, not '1'"),
        ({"kind": "throws", "target": "payment", "value": 1.5}, "its value is a probability, not 1.5"),
        ({"kind": "delay", "value": float("inf")}, "its value must be a number of 0 or more, not inf"),
        ({"kind": "crash", "target": SERVICES, "count": 0}, "its count must be a whole number of 1 or more, not 0"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_when_it_is_built(fields: dict[str, Any], words: str) -> None:
    """An unknown kind, a target or detail that the kind has not, times and numbers out of range."""
    with pytest.raises(ScenarioError, match=re.escape(words)):
        Fault(**fields)


def test_a_fault_may_trouble_only_a_service_that_there_is(tmp_path: Path) -> None:
    """It is found out when the scenario is looked up."""
    story = "from dataclasses import replace\nfrom scenarios.scenario import Fault\n"
    story += "from scenarios.stories.happy import scenario as happy\n"
    story += 'scenario = replace(happy, faults=(Fault("throws", "paymnt", value=1.0),))\n'
    (tmp_path / "story.py").write_text(story)
    with pytest.raises(ScenarioError, match="there is no service 'paymnt': a fault names it"):
        library.find(str(tmp_path / "story.py"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "../escape"}, "a scenario's name '../escape' must be 1 to 64 of the characters"),
        ({"name": ""}, "a scenario's name '' must be"),
        ({"name": 5}, "a scenario's name must be text, not 5"),
        ({"story": None}, "story must be text"),
        ({"domain": "shop"}, "domain must be a Domain, not 'shop'"),
        ({"load": None}, "load must be a function, not None"),
        ({"orders": "many"}, "orders must be a whole number of 1 or more, not 'many'"),
        ({"orders": 0}, "orders must be a whole number"),
        ({"concurrency": 1.0}, "concurrency must be a whole number"),
        ({"stall_seconds": 0}, "stall_seconds must be more than 0"),
        ({"faults": Kill(BROKER, at_seconds=1.0)}, "faults must be a tuple, not a Kill"),
        ({"faults": ("kill",)}, "faults must be Kills and Faults, not 'kill'"),
        ({"faults": (Kill(SERVICES, boundary=AT, step="captur"),)}, "there is no step 'captur' to kill at"),
        ({"faults": (Fault("crash", "payment"),)}, "crash strikes coordinator or services, not 'payment'"),
        ({"faults": (Fault("zombie", BROKER),)}, "zombie strikes coordinator or services, not 'broker'"),
        ({"faults": (Fault("swallow", "confrim", detail="do"),)}, "there is no step 'confrim' to swallow"),
        ({"expectations": ("completed",)}, "expectations must be functions, not 'completed'"),
        ({"conducts": ["payment"]}, "conducts must be a mapping"),
        ({"conducts": {"payment": 0.4}}, "the conduct of 'payment' must be a Conduct"),
    ],
)
def test_a_scenario_that_cannot_be_is_refused_when_it_is_built(fields: dict[str, Any], words: str) -> None:
    """Each field is checked, and the line names the field and what it is."""
    with pytest.raises(ScenarioError, match=words):
        replace(happy.scenario, **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sagas": {}}, "sagas must be a mapping, and not empty"),
        ({"sagas": {"order": "order"}}, "saga 'order' is a str, not a Saga"),
        ({"sagas": {"oder": SHOP.sagas["order"]}}, "saga 'order' stands under the name 'oder'"),
        ({"services": None}, "services must be a function"),
        ({"audit": 1}, "audit must be a function"),
        ({"entry_service": "the order"}, "entry_service 'the order' must be 1 to 64"),
    ],
)
def test_a_domain_that_cannot_be_is_refused_when_it_is_built(fields: dict[str, Any], words: str) -> None:
    """Each field is checked."""
    with pytest.raises(ScenarioError, match=words):
        replace(SHOP, **fields)


@pytest.mark.parametrize("fields", [{"slow_seconds": -1.0}, {"slow_seconds": "1"}, {"faulty_attempts": -1}])
def test_a_conduct_that_cannot_be_is_refused_when_it_is_built(fields: dict[str, Any]) -> None:
    """Its times and counts are checked."""
    with pytest.raises(ScenarioError, match=next(iter(fields))):
        Conduct(**fields)


def test_a_kill_may_name_the_step_by_which_a_request_is_placed() -> None:
    """The entry's command passes the services' boundaries like any other."""
    assert replace(happy.scenario, faults=(Kill(SERVICES, boundary=AT, step="place"),)).faults


# --- files -----------------------------------------------------------------------------------------------------

SERVICES_STORY = """
from dataclasses import replace
from scenarios.scenario import Conduct, Scenario
from scenarios.shop.domain import SHOP, good, shop_services

def services(conducts):
    {body}

scenario = Scenario("mine", "", replace(SHOP, services=services), good{more})
"""


def story(body: str, more: str = "") -> bytes:
    return SERVICES_STORY.format(body=body, more=more).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x02\x01\x00\x00\xff\xfe" * 20, "mine.py: "),
        (b"\xff\xfe", "mine.py, line 1: "),
        (b"import sys\nsys.exit()\n", "mine.py: SystemExit"),
        (b"import sys\nsys.exit('I do\\nnot like it')\n", "mine.py: SystemExit: I do not like it"),
        (
            b"from scenarios.scenario import Kill\nKill('coordinator', at_seconds=-1)\n",
            "mine.py: a kill's at_seconds",
        ),
        (story("raise ValueError('no database')"), "mine.py, line 7: the domain's services: ValueError: no database"),
        (story("return None"), "services must give a sequence, not None"),
        (story("return shop_services(conducts)[1:]"), "there is no service 'order': the entry names it"),
        (story("return shop_services(conducts)[:3]"), "there is no service 'shipping': step 'prepare' of saga"),
        (story("return 2 * list(shop_services(conducts))"), "two services have the same name"),
        (story("return [object()]"), "service object: it needs a name"),
        (
            story("return [*map(type, shop_services(conducts))]"),
            "services must give instances, OrderService() and not the class OrderService",
        ),
        (story("return shop_services({})", ", conducts={'paymnt': Conduct()}"), "no service 'paymnt': a conduct"),
    ],
)
def test_a_file_that_cannot_be_run_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    """Whatever it does when it is loaded, and whatever its services lack, it is one line that names the file."""
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(ScenarioError) as raised:
        library.find(str(path))
    assert words in str(raised.value)
    assert "mine.py" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_scenario_of_the_house_can_be_run() -> None:
    """None of them lacks a service, an action or a compensation."""
    assert [library.find(name).name for name in library.names()] == library.names()


def test_a_file_may_define_dataclasses(tmp_path: Path) -> None:
    """Also with postponed annotations, for which dataclasses looks its module up."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from scenarios.stories.happy import scenario\n\n@dataclass\nclass Mine:\n    number: int\n"
    )
    assert library.find(str(path)).name == "happy"


# --- requests --------------------------------------------------------------------------------------------------


def _raises(_random: Random, number: int) -> Request:
    raise KeyError(f"sku-{number}")


def _exits(_random: Random, _number: int) -> Request:
    raise SystemExit(3)


def _with(**fields: Any) -> Callable[[Random, int], Request]:
    return lambda random, number: replace(good(random, number), **fields)


DRAWS: Mapping[str, Callable[[Random, int], Any]] = {
    "the load's request 7: KeyError: 'sku-7'": _raises,
    "the load's request 7: SystemExit: 3": _exits,
    "must be a Request with a Fate, not None": lambda _random, _number: None,
    "must be a Request with a Fate, not Request": _with(fate="completed"),
    "cancel_after_seconds must be a time": _with(cancel_after_seconds=-0.1),
    "its payload: a value of type object cannot be encoded": _with(payload={"items": object()}),
    "its payload: cannot be encoded: Integer value out of range": _with(payload={"items": 2**70}),
    "its payload: [0-9]+ bytes are more than": _with(payload="x" * 600_000),
}


@pytest.mark.parametrize(("words", "load"), DRAWS.items(), ids=list(DRAWS))
def test_a_request_that_cannot_be_sent_is_one_line(words: str, load: Callable[[Random, int], Any]) -> None:
    """A load that raises, gives no request, or one that no message can hold."""
    scenario: Scenario = replace(happy.scenario, load=load)
    with pytest.raises(ScenarioError, match=words):
        draw(scenario, 1, 7)


def test_a_load_that_raises_is_named_with_its_place() -> None:
    """The line says in which file and where."""
    with pytest.raises(ScenarioError, match=r"test_scenario_checks\.py, line \d+: the load's request 7"):
        draw(replace(happy.scenario, load=_raises), 1, 7)
