"""The pytest plugin, in a pytest within pytest: chaos by seed, worlds, clusters, the line that repeats a failure."""

import logging
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# pytester forgets the modules that an inner run was the first to import: half of them would be there twice then.
from scenarios import library, runner  # noqa: F401
from scenarios.simulation import simulate  # noqa: F401

pytest_plugins = "pytester"

MODULE = "scenarios.pytest_plugin"
# Where the project is installed it is loaded by its entry point, and cannot be loaded twice.
LOAD = () if any(point.value == MODULE for point in entry_points(group="pytest11")) else ("-p", MODULE)

WRONG = """
from dataclasses import replace
from scenarios.scenario import Fate
from scenarios.shop.domain import good
from scenarios.stories import happy

def load(random, number):
    return replace(good(random, number), fate=Fate.REJECTED)

scenario = replace(happy.scenario, name="wrong", load=load)
"""


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest(*LOAD, "-p", "no:cacheprovider", "--strict-markers", *arguments)


def test_it_is_an_entry_point() -> None:
    """Whoever installs sagasim has the plugin."""
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"sagasim": MODULE}


def test_a_marked_test_runs_once_a_seed(pytester: pytest.Pytester) -> None:
    """The scenario's life is lived first, whether the test looks at its result or not."""
    source = """
        import pytest

        @pytest.mark.chaos("happy", seeds=2)
        def test_looks(chaos_result, chaos_seed):
            assert chaos_result.seed == chaos_seed
            assert chaos_result.verdict == "passed"

        @pytest.mark.chaos("happy", seeds=3)
        def test_does_not_look():
            pass
    """
    result = run(pytester, source, "-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*::test_looks?seed-0? PASSED*", "*::test_does_not_look?seed-2? PASSED*"])


@pytest.mark.parametrize(
    ("options", "seeds"), [(("--chaos-seeds", "2"), [0, 1]), (("--chaos-seed", "77"), [77])], ids=["many", "one"]
)
def test_the_options_choose_the_seeds(pytester: pytest.Pytester, options: tuple[str, ...], seeds: list[int]) -> None:
    """They have the last word over the mark."""
    source = """
        import pytest

        @pytest.mark.chaos(seeds=5)
        def test_it(chaos_seed):
            print("lived", chaos_seed)
    """
    result = run(pytester, source, "-s", *options)
    result.assert_outcomes(passed=len(seeds))
    lived = [int(line.rpartition("lived ")[2].split()[0].rstrip(".")) for line in result.outlines if "lived" in line]
    assert lived == seeds


def test_fresh_seeds_are_drawn_and_printed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session draws others, the same for each of its tests; an option leaves no room for them."""
    monkeypatch.delenv("PYTEST_XDIST_TESTRUNUID", raising=False)  # or these sessions are parts of our own
    source = """
        import pytest

        @pytest.mark.chaos(seeds=1, fresh=2)
        def test_one(chaos_seed):
            print("lived", chaos_seed)

        @pytest.mark.chaos(seeds=1, fresh=2)
        def test_other(chaos_seed):
            assert chaos_seed is not None
    """
    printed = []
    for _ in range(2):
        result = run(pytester, source, "-v")
        result.assert_outcomes(passed=6)
        (line,) = [line for line in result.outlines if line.startswith("chaos: fresh seeds ")]
        printed.append(line.removeprefix("chaos: fresh seeds ").split(", "))
        assert all(any(f"[seed-{seed}]" in line for line in result.outlines) for seed in printed[-1])
    assert len({seed for seeds in printed for seed in seeds}) == 4
    run(pytester, source, "--chaos-seeds", "3").assert_outcomes(passed=6)
    run(pytester, source, "--chaos-seed", "3").assert_outcomes(passed=2)


def test_no_seeds_at_all_is_a_usage_error(pytester: pytest.Pytester) -> None:
    """A suite that runs nothing must not pass."""
    result = run(pytester, "def test_it(): pass", "--chaos-seeds", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_life_that_goes_wrong_fails_the_test(pytester: pytest.Pytester) -> None:
    """It says what is wrong and what was done to that life, and prints the line that repeats it, which does."""
    pytester.makepyfile(wrong=WRONG)
    source = """
        import pytest

        @pytest.mark.chaos("wrong.py")
        def test_it():
            raise RuntimeError("not reached")
    """
    result = run(pytester, source, "--chaos-seed", "3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "wrong, seed 3: failed",
            "*it must be rejected",
            "its life:",
            "  * orders, *",
            "its last lines:",
            "*repeat it*",
        ]
    )
    result.stdout.no_fnmatch_line("*not reached*")
    repeat = next(line for line in result.outlines if line.startswith("pytest '"))
    name = "test_a_life_that_goes_wrong_fails_the_test.py"
    assert repeat == f"pytest '{name}::test_it' --chaos-seed 3"
    again = pytester.runpytest(*LOAD, f"{name}::test_it", "--chaos-seed", "3")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["wrong, seed 3: failed"])


def test_a_world_of_this_seed(pytester: pytest.Pytester) -> None:
    """`saga_world` builds as many as are wanted; a failed assertion is repeated by its seed too."""
    source = """
        import pytest

        @pytest.mark.chaos(seeds=2)
        def test_it(saga_world, chaos_seed):
            one, other = saga_world("happy", orders=3), saga_world("happy", orders=2, split=True)
            one.loop.call_later(0.01, one.crash, one.coordinator)
            for world in (one, other):
                world.run(600.0)
                assert world.seed == chaos_seed
                assert world.audit().violations == []
            assert chaos_seed == 0
    """
    result = run(pytester, source)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["pytest '*::test_it' --chaos-seed 1"])


def test_a_world_without_a_mark(pytester: pytest.Pytester) -> None:
    """Its seed is 0, or the one that is asked for."""
    source = """
        def test_it(saga_world):
            assert saga_world("happy", orders=1).seed == 5
    """
    run(pytester, source, "--chaos-seed", "5").assert_outcomes(passed=1)
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["pytest '*::test_it' --chaos-seed 0"])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("@pytest.mark.chaos('happy', seed=3)", "*chaos() got an unexpected keyword argument 'seed'*"),
        ("@pytest.mark.chaos('sad', seeds=1)", "*there is no scenario 'sad'*"),
        ("@pytest.mark.usefixtures('chaos_result')", "*chaos_result needs @pytest.mark.chaos(scenario)*"),
    ],
)
def test_a_mark_that_makes_no_sense_is_an_error(pytester: pytest.Pytester, line: str, says: str) -> None:
    """An unknown word, a scenario that there is not, and a result of no scenario."""
    result = run(pytester, f"import pytest\n\n{line}\ndef test_it(): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([says])


def test_a_real_cluster(pytester: pytest.Pytester) -> None:
    """`saga_cluster` runs real processes to their verdict, and leaves this process's logs as they were."""
    source = """
        def test_it(saga_cluster, tmp_path):
            result = saga_cluster("out-of-stock", orders=5)
            assert (result.verdict, result.mode, result.orders) == ("passed", "real", 5)
            assert (tmp_path / "cluster-1" / "logs" / "run.log").exists()
    """
    logger = logging.getLogger("sagasim")
    before = logger.level, logger.propagate, list(logger.handlers)
    run(pytester, source).assert_outcomes(passed=1)
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
