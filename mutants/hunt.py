"""Lives of a simulated cluster, one a seed, until one finds something: what a bug in the engine has to hide from.

    python -m mutants.hunt --seeds 40            in a copy of the project, with or without a bug in it

It prints one JSON object: where the code is that it ran, and what was found: at which seeds, and in what words.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import actors
from scenarios import library
from scenarios.chaos.drawing import draw_plan
from scenarios.simulation.simulate import simulate
from scenarios.stories import FLAGSHIP


@dataclass(frozen=True, slots=True)
class Finding:
    """What a life has shown: its seed, and all that was wrong with it."""

    seed: int
    violations: list[str]


def hunt(seed: int, scenario_name: str = FLAGSHIP) -> Finding | None:
    """Live one life; what is wrong with it, if anything is."""
    scenario = library.find(scenario_name)
    try:
        result = simulate(scenario, seed, draw_plan(scenario, seed))
    except Exception as error:
        return Finding(seed, [f"raised {type(error).__name__}: {error}"])
    if result.verdict == "passed":
        return None
    return Finding(seed, result.violations or [f"{result.lost} lost, {result.duplicate_effects} duplicate effects"])


def first_findings(seeds: Iterable[int], enough: int) -> list[Finding]:
    """Live one life a seed until so many were found out, or no seed is left."""
    found: list[Finding] = []
    for seed in seeds:
        finding = hunt(seed)
        if finding is not None:
            found.append(finding)
            if len(found) == enough:
                break
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants.hunt")
    parser.add_argument("--seeds", type=int, default=40, help="how many to live at most")
    parser.add_argument("--enough", type=int, default=3, help="how many that are found out end the hunt")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found = first_findings(range(1, arguments.seeds + 1), arguments.enough)
    code = Path(actors.__file__).resolve().parent.parent
    json.dump({"code": str(code), "found": [asdict(finding) for finding in found]}, sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
