"""A failure as a file: what is needed to run it again, elsewhere and later; and a ready test of it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scenarios import library
from scenarios.chaos.plan import FaultPlan, plan_from_data
from scenarios.recorded import fields_of, object_of
from scenarios.scenario import ScenarioError
from scenarios.simulation.result import SimResult
from scenarios.simulation.simulate import simulate
from scenarios.simulation.trace import Happening

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A life that failed, as small as it has become. `reference` is the scenario's name or the path of its file."""

    reference: str
    seed: int
    plan: FaultPlan
    violations: tuple[str, ...]
    trace_sha256: str

    def replay(self, happenings: list[Happening] | None = None) -> SimResult:
        """Live it again. Raises ScenarioError if the scenario is not there."""
        return simulate(library.find(self.reference), self.seed, self.plan, happenings=happenings)

    def lasting(self) -> "Failure":
        """The same, with a file named by a path that holds wherever it is replayed from."""
        if not self.reference.endswith(".py"):
            return self
        return replace(self, reference=str(Path(self.reference).resolve()))

    def write(self, path: Path) -> None:
        """Raises ScenarioError if it cannot be written."""
        try:
            path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ScenarioError(f"{path}: {error.strerror}") from None

    def as_test(self) -> str:
        """A pytest file that fails as long as the failure is there."""
        return _TEST.format(seed=self.seed, name=self._name(), data=json.dumps(asdict(self), indent=4))

    def _name(self) -> str:
        return "".join(c if c.isalnum() else "_" for c in Path(self.reference).stem)


def read_failure(path: Path) -> Failure:
    """Raises ScenarioError in one line if the file is none of ours."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path} is not JSON: {error}") from None
    return failure_from_data(data, str(path))


def failure_from_data(data: object, where: str = "a recorded failure") -> Failure:
    """Raises ScenarioError."""
    what = f"{where} is no recorded failure: it"
    held = object_of(data, what)
    if held.pop("format", FORMAT) != FORMAT:
        raise ScenarioError(f"{where}: its format is not known here (known: {FORMAT})")
    held = fields_of(Failure, held, what)
    plan = plan_from_data(held["plan"], f"{where} is no recorded failure: its plan")
    return Failure(**held | {"plan": plan, "violations": tuple(held["violations"])})


_TEST = '''"""Found by `run_sim.py explore`: seed {seed}. It fails as long as the failure is there."""

import json

from scenarios.simulation.failure import failure_from_data

FAILURE = json.loads(
    r"""
{data}
"""
)


def test_{name}_seed_{seed}() -> None:
    """This life of a cluster keeps every rule."""
    result = failure_from_data(FAILURE).replay()
    assert result.violations == []
    assert result.verdict == "passed"
'''
