"""Finds scenarios, the house's by name, a user's own by the path of its file, and sees that they can be run."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import scenarios.stories
from actors.definition import DefinitionError
from actors.handlers import HandlerTable, ServiceHandlers, handlers_of
from broker.subjects import check_token
from scenarios.calling import call, in_words
from scenarios.scenario import Scenario, ScenarioError
from scenarios.stories import FLAGSHIP


def names() -> list[str]:
    """Every story of the house, the flagship last."""
    found = [module.name.replace("_", "-") for module in pkgutil.iter_modules(scenarios.stories.__path__)]
    return sorted(found, key=lambda name: (name == FLAGSHIP, name))


def find(reference: str) -> Scenario:
    """The scenario of a name or a file. Raises ScenarioError in one line."""
    if reference.endswith(".py"):
        return _of_module(_load_file(Path(reference)), reference)
    if reference not in names():
        raise ScenarioError(f"there is no scenario {reference!r}; there are {', '.join(names())}")
    module = importlib.import_module(f"scenarios.stories.{reference.replace('-', '_')}")
    return _of_module(module, reference)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ScenarioError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses, among others, look for the module of a class
    beside = str(path.resolve().parent)
    if beside not in sys.path:
        sys.path.append(beside)  # as for a script of its own; last, so that it hides nothing of the house
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        place = f"{path}, line {error.lineno}" if error.lineno else f"{path}"
        raise ScenarioError(f"{place}: {error.msg}") from None
    except (ScenarioError, DefinitionError) as error:
        raise ScenarioError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:
        raise ScenarioError(f"{path}: {in_words(error)}") from None
    return module


def _of_module(module: ModuleType, reference: str) -> Scenario:
    scenario = getattr(module, "scenario", None)
    if not isinstance(scenario, Scenario):
        raise ScenarioError(f"{reference}: a scenario file must define `scenario = Scenario(...)`")
    try:
        _check_services(scenario)
    except ScenarioError as error:
        raise ScenarioError(f"{reference}: {error}") from None
    return scenario


# --- what its services must be ---------------------------------------------------------------------------------


def _check_services(scenario: Scenario) -> None:
    """Build the services once, as each node will: whatever a saga or a request asks for must be there."""
    domain = scenario.domain
    services = call("the domain's services", domain.services, scenario.conducts)
    if not isinstance(services, Sequence):
        raise ScenarioError(f"domain {domain.name!r}: services must give a sequence, not {services!r:.80}")
    tables = dict(map(_named_handlers, services))
    if len(tables) < len(services):
        raise ScenarioError(f"domain {domain.name!r}: two services have the same name")
    for name in scenario.conducts:
        _service(tables, name, "a conduct")
    for fault in scenario.others:
        if fault.service:
            _service(tables, fault.service, "a fault")
    if domain.entry_action not in _service(tables, domain.entry_service, "the entry").actions:
        raise ScenarioError(f"service {domain.entry_service!r} has no action {domain.entry_action!r}: the entry")
    for saga in domain.sagas.values():
        for step in saga.steps:
            where = f"step {step.name!r} of saga {saga.name!r}"
            table = _service(tables, step.service, where)
            if step.action not in table.actions:
                raise ScenarioError(f"service {step.service!r} has no action {step.action!r}: {where}")
            if step.compensation is not None and step.compensation not in table.compensations:
                raise ScenarioError(f"service {step.service!r} has no compensation {step.compensation!r}: {where}")


def _named_handlers(service: ServiceHandlers) -> tuple[str, HandlerTable]:
    if isinstance(service, type):
        raise ScenarioError(
            f"services must give instances, {service.__name__}() and not the class {service.__name__}"
        )
    what = f"service {type(service).__name__}"
    name, tables = getattr(service, "name", None), getattr(service, "tables", None)
    if not isinstance(name, str) or not isinstance(tables, tuple) or not all(isinstance(t, str) for t in tables):
        raise ScenarioError(f"{what}: it needs a name, which is text, and tables, which is a tuple of names")
    try:
        check_token("service", name)
        return name, handlers_of(service)
    except (ValueError, TypeError) as error:
        raise ScenarioError(f"{what}: {error}") from None


def _service(tables: dict[str, HandlerTable], name: str, what_for: str) -> HandlerTable:
    if name not in tables:
        raise ScenarioError(f"there is no service {name!r}: {what_for} names it")
    return tables[name]
