"""Who watches the watchers: a bounded share of `make mutants`, which hunts for all of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mutants import run
from mutants.catalogue import MUTANTS, Edit, Mutant
from mutants.run import (
    CHECKS,
    OTHER,
    ROOT,
    UNCHANGED,
    GuiltyError,
    Outcome,
    PatchError,
    copy_project,
    hunt_all,
    kind_of,
    page,
    patched,
)

SEEDS = 12
SHARE = ("publish-before-commit", "no-ledger-check", "unknown-is-not-undone")  # those that nothing can hide for long
RULES = re.findall(r"^(\d+)\. ", (ROOT / "docs" / "ARCHITECTURE.md").read_text(), re.MULTILINE)


def of(name: str) -> Mutant:
    return next(mutant for mutant in MUTANTS if mutant.name == name)


def test_there_are_many() -> None:
    """At least fifteen, each with a name of its own, a story, and a rule that there is."""
    assert len(MUTANTS) >= 15
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert all(mutant.story and str(mutant.rule) in RULES for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_fits_the_engine_as_it_is(mutant: Mutant) -> None:
    """Its edits find their places, change something, and leave code that knows every name it uses."""
    for path, text in patched(mutant, ROOT).items():
        assert text != (ROOT / path).read_text()
        wanted = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "F821", "--stdin-filename", path, "-"]
        checked = subprocess.run(wanted, input=text, capture_output=True, text=True, check=False, cwd=ROOT)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_an_edit_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    """A bug that is not there would prove nothing: not once, more than once, or no such file."""
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    for edit, words in (
        (
            Edit("a.py", "y = 1\n", ""),
            r"old: a\.py: 'y = 1' must stand there once, and does 0 times",
        ),
        (Edit("a.py", "x = 1\n", ""), r"does 2 times"),
        (Edit("b.py", "x = 1\n", ""), r"b\.py: there is no such file any more"),
    ):
        with pytest.raises(PatchError, match=words):
            patched(Mutant("old", 1, "", (edit,)), tmp_path)


def test_one_that_no_longer_fits_stops_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Loudly, and before the first hunt."""
    old = Mutant("old", 1, "", (Edit("actors/machine.py", "no such line", ""),))
    with pytest.raises(PatchError, match="old: "):
        hunt_all([of("tombstone-dropped"), old], SEEDS, workers=1)
    assert capsys.readouterr().out == ""


def test_a_share_of_them_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Within a few seeds, at which the engine without a bug lives well."""
    outcomes = hunt_all([of(name) for name in SHARE], SEEDS, workers=2)
    assert [outcome.mutant.name for outcome in outcomes if not outcome.killed] == []
    assert all(OTHER not in outcome.checks for outcome in outcomes)
    assert re.match(r"no bug at all +lives well", capsys.readouterr().out)


def test_explore_finds_one_and_makes_a_test_of_it(tmp_path: Path) -> None:
    """It is shrunk to at most three faults, and its file fails with the bug and passes without."""
    bug, project, found = of("tombstone-dropped"), tmp_path / "project", tmp_path / "found"
    copy_project(project)
    shutil.copy(ROOT / "run_sim.py", project)
    for path, text in patched(bug, ROOT).items():
        (project / path).write_text(text)
    explore = ("run_sim.py", "explore", "everything", "--seeds", "7", "--failures", str(found))
    out = in_python(project, *explore, status=1)
    stories = out.split("\n\nseed ")[1:]
    assert len(stories) == 3  # so many are shrunk of all that fail
    for story in stories:
        shrunk = [line for line in story.splitlines() if line.startswith("  shrunk: ")]
        assert 1 <= len(shrunk) <= 1 + 3  # the size of the life, then its faults
    for test in sorted(found.glob("test_*.py")):
        pytest_it = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(found), str(test))
        assert "1 failed" in in_python(project, *pytest_it, status=1)
        assert "1 passed" in in_python(ROOT, *pytest_it, status=0)


def in_python(code: Path, *arguments: str, status: int) -> str:
    """Run Python on the code of that directory; what it printed."""
    environment = os.environ | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_code_that_does_not_run_is_no_kill() -> None:
    """A misspelt mutant would be found by every seed; it is an error instead."""
    edits = (
        Edit("actors/machine.py", "def decide(", "def decide(("),
        Edit("broker/batching.py", "self._gathered = self._gathered, {}", "self._gathered = self._gathred, {}"),
    )
    for edit, words in zip(edits, ("failed to run", "does not run"), strict=True):
        with pytest.raises(PatchError, match=f"misspelt: .*{words}"):
            hunt_all([Mutant("misspelt", 1, "", (edit,))], 1, workers=1)


def test_a_guilty_engine_ends_the_hunt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds fault without a bug proves nothing with one."""
    bug = of("publish-before-commit")
    monkeypatch.setattr(run, "UNCHANGED", Mutant(UNCHANGED.name, 0, "", bug.edits))
    with pytest.raises(GuiltyError):
        hunt_all([bug], SEEDS, workers=1)


def test_an_unknown_mutant_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """By name, before anything is run."""
    with pytest.raises(SystemExit) as ended:
        run.main(["--only", "no-such-bug"])
    assert ended.value.code == 2
    assert "there is no mutant no-such-bug" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("main sent s-1 'do open' to order unsaved: the store says IDLE, round 0, attempt 0", "save, publish"),
        ("order acknowledged s-1 'do open' too early: the broker has no answer to it", "save, ack"),
        ("main sent s-1 'do open' to order again in the same words", "said twice"),
        ("saga s-1: do open took effect 2 times", "effects"),
        ("saga s-1: open was undone before confirm, which depends on it", "effects"),
        ("saga s-1: it undoes open before confirm, which depends on it", "history"),
        ("order s-1 is still PENDING; stock, payment, shipment are (None, None, None)", "books"),
        ("EUR: the totals do not add up: {}", "books"),
        ("order s-1 ended completed; it must be compensated", "fate"),
        ("2 dead letters, and nobody has sent anything that could be one", "dead letters"),
        ("raised KeyError: 2 ()", "raised"),
        ("not at rest 1800 s after it has healed: 1 sagas are unfinished", "at rest"),
        ("something new", OTHER),
    ],
)
def test_a_check_is_known_by_its_words(words: str, kind: str) -> None:
    """The matrix sorts what was found by who found it."""
    assert kind_of(words) == kind


def test_the_page_shows_who_found_whom() -> None:
    """A row a mutant, a cross a check, and survivors in bold."""
    killed, survivor = of("tombstone-dropped"), of("epoch-left-out")
    found = {3: ["raised KeyError: 2 ()"], 5: ["main sent s 'x' to y unsaved: no"]}
    rows = page([Outcome(killed, found, 1.0), Outcome(survivor, {}, 1.0)], 9).splitlines()
    assert any("1 of 2 are killed, each within 9 seeds" in row for row in rows)
    head = next(row for row in rows if row.startswith("| mutant")).split(" | ")
    row = next(row for row in rows if killed.name in row).split(" | ")
    assert row[3] == "3"
    assert [name for name, cross in zip(head, row, strict=False) if cross == "x"] == ["save, publish", "raised"]
    assert any(survivor.name in row and "**survives**" in row for row in rows)
    assert set(head[4:-1]) <= set(CHECKS)
