"""Finds scenarios: those of the house by name, a user's own by the path of its file."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path
from types import ModuleType

import scenarios.stories
from scenarios.scenario import Scenario, ScenarioError

FLAGSHIP = "everything"


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
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ScenarioError(f"{path}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise ScenarioError(f"{path}: {type(error).__name__}: {error}") from None
    return module


def _of_module(module: ModuleType, reference: str) -> Scenario:
    scenario = getattr(module, "scenario", None)
    if not isinstance(scenario, Scenario):
        raise ScenarioError(f"{reference}: a scenario file must define `scenario = Scenario(...)`")
    return scenario
