"""Puts each bug into a copy of the project and hunts for it; prints the kill matrix, and keeps it in docs/MUTANTS.md.

python -m mutants.run                        all of them, and the page
python -m mutants.run --only NAME ...        some of them, and no page
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutants.catalogue import MUTANTS, Mutant

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "MUTANTS.md"
PACKAGES = ("actors", "broker", "persistence", "scenarios", "mutants")
SEEDS = 250
ENOUGH = 3
"""Lives that are found out, before a hunt is over: each may show another side of the same bug."""
TIMEOUT_SECONDS = 600.0
"""For the whole hunt of one mutant: many times what the seeds take. A life that never ends is found that way too."""
UNCHANGED = Mutant("no bug at all", 0, "the engine as it is: every seed must live well", ())


CHECKS: dict[str, str] = {
    "save, publish": r" sent \S+ '.*' to \S+ unsaved",
    "save, ack": r" acknowledged \S+ '.*' too early",
    "said twice": r" sent \S+ '.*' to \S+ again",
    "effects": r"took effect|stays done$|, and \S+ was undone$|\S+ was undone before",
    "history": r"^saga \S+: (it |transition|\S+ is undone|\S+ was kept|.* after it was)",
    "store": r"its snapshot is of|both active and finished|changed after its end|parked|cannot be judged",
    "books": r"^order \S+ (is|was) |add up|oversold|in the totals|units reserved",
    "fate": r" ended \w+; it must be",
    "dead letters": r"dead letters",
    "raised": r"raised ",
    "at rest": r"not at rest|goes on and on|did not end|nothing is left",
}
"""The kinds of checks, and the words by which one knows what each has found; the first that fits counts."""
OTHER = "other"
_DOES_NOT_RUN = re.compile(
    r"raised (NameError|SyntaxError|IndentationError|ImportError|ModuleNotFoundError|AttributeError)"
)


class PatchError(Exception):
    """A mutant's edit does not fit the code any more. Mend the edit: a bug that is not there proves nothing."""


class GuiltyError(Exception):
    """The checks find fault with the engine as it is, so what they find in a mutant proves nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a hunt came to: the first seeds whose lives were found out, and what each of them showed."""

    mutant: Mutant
    lives: Mapping[int, Sequence[str]]
    elapsed_seconds: float

    @property
    def killed(self) -> bool:
        return bool(self.lives)

    @property
    def seed(self) -> int:
        """The first that found it."""
        return min(self.lives)

    @property
    def checks(self) -> set[str]:
        """The kinds of checks that found it, in whichever of these lives."""
        return {kind_of(words) for violations in self.lives.values() for words in violations}


def kind_of(words: str) -> str:
    """Which kind of check speaks so."""
    return next((kind for kind, pattern in CHECKS.items() if re.search(pattern, words)), OTHER)


def copy_project(target: Path) -> None:
    """The packages that a hunt needs, without their caches."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))


def patched(mutant: Mutant, base: Path) -> dict[str, str]:
    """The files that a mutant changes, as it leaves them. Raises PatchError unless each edit fits exactly once."""
    texts: dict[str, str] = {}
    for edit in mutant.edits:
        path = base / edit.path
        if not path.is_file():
            raise PatchError(f"{mutant.name}: {edit.path}: there is no such file any more")
        text = texts.get(edit.path) or path.read_text()
        found = text.count(edit.find)
        if found != 1:
            first = edit.find.strip().splitlines()[0]
            raise PatchError(f"{mutant.name}: {edit.path}: {first!r} must stand there once, and does {found} times")
        texts[edit.path] = text.replace(edit.find, edit.replace)
    return texts


def hunt(mutant: Mutant, base: Path, seeds: int) -> Outcome:
    """Live lives with this bug in a copy of `base` until enough of them show it. Raises PatchError."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sagasim-mutant-") as name:
        project = Path(name) / "project"
        shutil.copytree(base, project)
        for path, text in patched(mutant, base).items():
            (project / path).write_text(text)
        try:
            lives = _hunt_in(project, seeds)
        except PatchError as error:
            raise PatchError(f"{mutant.name}: {error}") from None
    broken = [words for violations in lives.values() for words in violations if _DOES_NOT_RUN.search(words)]
    if broken and mutant.edits:
        raise PatchError(f"{mutant.name}: that is no bug, but code that does not run: {broken[0]}")
    return Outcome(mutant, lives, time.monotonic() - begun)


def _hunt_in(project: Path, seeds: int) -> dict[int, list[str]]:
    """Run the hunt in a process of its own, on the copy's code and no other."""
    command = [sys.executable, "-m", "mutants.hunt", "--seeds", str(seeds), "--enough", str(ENOUGH)]
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {0: [f"the hunt did not end within {TIMEOUT_SECONDS:g} s"]}
    try:
        report = json.loads(done.stdout)
    except ValueError:
        raise PatchError(f"the hunt failed to run:\n{done.stderr[-2000:]}") from None
    if Path(report["code"]) != project.resolve():
        raise PatchError(f"the hunt ran the code in {report['code']}, not that of the copy")
    return {life["seed"]: life["violations"] for life in report["found"]}


def hunt_all(mutants: Sequence[Mutant], seeds: int, workers: int) -> list[Outcome]:
    """Hunt for all of them, some at a time, and tell each as it is found.

    Raises PatchError if one does not fit, and GuiltyError if the engine is found out without any bug in it.
    """
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="sagasim-base-") as name, ThreadPoolExecutor(workers) as pool:
        base = Path(name)
        copy_project(base)  # once: the project may be edited meanwhile
        for mutant in mutants:
            patched(mutant, base)  # before the first hunt: one that does not fit stops it all
        unchanged = hunt(UNCHANGED, base, seeds)
        print(line(unchanged), flush=True)
        if unchanged.killed:
            raise GuiltyError("the engine is found out without any bug in it: first mend that, or the check")
        for outcome in pool.map(lambda mutant: hunt(mutant, base, seeds), mutants):
            outcomes.append(outcome)
            print(line(outcome), flush=True)
    return outcomes


def line(outcome: Outcome) -> str:
    """One outcome for people."""
    name = f"{outcome.mutant.name:<32}"
    if not outcome.killed:
        return f"{name} {'survived' if outcome.mutant.edits else 'lives well'} ({outcome.elapsed_seconds:.1f} s)"
    checks = ", ".join(check for check in CHECKS if check in outcome.checks)
    return f"{name} killed at seed {outcome.seed} by {checks}: {outcome.lives[outcome.seed][0]:.100}"


def page(outcomes: Sequence[Outcome], seeds: int) -> str:
    """The kill matrix as a page of the documentation."""
    killed = sum(outcome.killed for outcome in outcomes)
    rows = [
        "# The mutants",
        "",
        "Bugs that are put into a copy of the engine, one at a time, and hunted for in seeded lives of a simulated",
        "cluster. Written by `make mutants`; do not edit. A mutant that survives is a missing check.",
        "",
        f"{killed} of {len(outcomes)} are killed, each within {seeds} seeds; without a bug the engine lives well",
        "at all of them. The seed is the first to find it out; a cross is a check that did, in one of the first "
        f"{ENOUGH} such lives.",
        "",
        f"| mutant | rule | what is wrong | seed | {' | '.join(CHECKS)} |",
        "|---|---|---|---|" + ":-:|" * len(CHECKS),
    ]
    for outcome in outcomes:
        mutant, seed = outcome.mutant, str(outcome.seed) if outcome.killed else "**survives**"
        crosses = " | ".join("x" if check in outcome.checks else "" for check in CHECKS)
        rows.append(f"| {mutant.name} | {mutant.rule} | {mutant.story} | {seed} | {crosses} |")
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many lives to hunt through at most")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these mutants")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    unknown = set(options.only or ()) - {mutant.name for mutant in chosen}
    if unknown:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    try:
        outcomes = hunt_all(chosen, options.seeds, options.workers)
    except (PatchError, GuiltyError) as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    killed = sum(outcome.killed for outcome in outcomes)
    print(f"{killed} of {len(outcomes)} mutants killed")
    if not options.only:
        PAGE.write_text(page(outcomes, options.seeds))
    return 0 if killed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
