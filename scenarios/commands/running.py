"""What `run` does alike on real processes and in simulation: how it begins, and how it ends."""

import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from scenarios import library
from scenarios.commands.output import say
from scenarios.commands.shared import access_of, drawn
from scenarios.report.outputs import Outputs, check_writable
from scenarios.scenario import Result, Scenario, ScenarioError
from scenarios.serving import Access
from scenarios.telemetry.tracing import check_tracing

if TYPE_CHECKING:
    from scenarios.report.facts import Facts


def begin(options: Namespace) -> tuple[Scenario, int, Access | None]:
    """What to run, under which seed, on whose broker. Raises ScenarioError, before anything is begun."""
    scenario = library.find(options.name)
    if options.json is not None:
        check_writable("--json", options.json)
    Outputs(options.report, options.trace).check()
    _check_distinct({"--json": options.json, "--report": options.report, "--trace": options.trace})
    access = access_of(options)
    if options.purge and access is None:
        raise ScenarioError("--purge goes with --nats: an embedded broker has nobody else's messages")
    seed = drawn(options.seed)
    if options.otel:
        if options.mode != "real":
            raise ScenarioError("--otel goes with --mode real: nobody waits for spans of virtual time")
        check_tracing()
    return scenario, seed, access


def _check_distinct(outputs: Mapping[str, Path | None]) -> None:
    taken: dict[Path, str] = {}
    for option, path in outputs.items():
        if path is not None and (other := taken.setdefault(path.resolve(), option)) != option:
            raise ScenarioError(f"{other} and {option} name the same file, {path}")


def end(options: Namespace, result: Result, facts: "Callable[[], Facts]") -> int:
    """Write what the run was asked to leave; the exit status."""
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise ScenarioError(f"--json {options.json}: {error.strerror}") from None
    outputs = Outputs(options.report, options.trace)
    if outputs.wanted:
        from scenarios.report.writing import write  # with the facts some 20 ms: for those who want it

        for line in write(outputs, facts()):
            say(line)
    return 0 if result.verdict == "passed" else 1
