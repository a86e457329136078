"""What JSON has held, before it is taken for what was once written down; what it lacks is said in plain words."""

from dataclasses import MISSING, fields
from typing import Any, get_origin

from scenarios.demand import demand

_WORDS: dict[object, str] = {str: "text", int: "a whole number", bool: "true or false", list: "a list"}


def object_of(data: object, what: str) -> dict[str, Any]:
    """A copy of it, if it is an object. Raises ScenarioError, which begins with `what`."""
    demand(isinstance(data, dict), f"{what} must be an object, not {data!r:.40}")
    assert isinstance(data, dict)
    return dict(data)


def fields_of(kind: type[Any], data: object, what: str) -> dict[str, Any]:
    """A copy of it, if it is an object with the fields of a dataclass, those without a default at least. Texts, whole
    numbers, truths and lists are such; all else is left to the dataclass. Raises ScenarioError.
    """
    found = object_of(data, what)
    known = {field.name: field for field in fields(kind)}
    lacking = [name for name, field in known.items() if field.default is MISSING and name not in found]
    demand(not lacking, f"{what} lacks {', '.join(map(repr, lacking))}")
    strange = [name for name in found if name not in known]
    demand(not strange, f"{what} has {', '.join(map(repr, strange))}, which nobody knows")
    for name, value in found.items():
        wanted = list if get_origin(known[name].type) is tuple else known[name].type
        fits = wanted not in _WORDS or type(value) is wanted
        demand(fits, f"{what}: {name!r} must be {_WORDS.get(wanted)}, not {value!r:.40}")
    return found
