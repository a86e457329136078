"""sagasim's command line."""

# ruff: noqa: E402 - the first thing is to let Ctrl-C end quietly what is still being loaded
import signal

_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import contextlib
import os
import random
import shlex
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from actors.definition import DefinitionError
from broker.port import BrokerError
from persistence.errors import CorruptError, DiskError, LockedError, StorageError
from scenarios import dashboard, library, logs
from scenarios.backup import backup
from scenarios.bench import parts
from scenarios.bench.commands import BenchOptions, bench
from scenarios.chaos.crash_point import from_text
from scenarios.chaos.drawing import plan_of
from scenarios.chaos.faults import REAL
from scenarios.chaos.moods import troubled
from scenarios.checking import check_directory, findings_json, findings_lines
from scenarios.cluster import ClusterError
from scenarios.held_directory import URL_FILE
from scenarios.inspection import STATES
from scenarios.inspection_json import as_json
from scenarios.inspection_text import JSON, MERMAID, TEXT, inspect
from scenarios.load import check_load
from scenarios.operate import operate
from scenarios.plain import Output, access_words, again, opening, show, summary
from scenarios.report.facts import Facts, of_real_run, of_simulated_run
from scenarios.report.outputs import Outputs, check_writable
from scenarios.runner import Run, RunOptions, result_json
from scenarios.scenario import COORDINATOR, SERVICES, Result, Scenario, ScenarioError
from scenarios.serving import MAX_MAP_BYTES, NOT_YET, Access, Serving, serve
from scenarios.simulation import commands as simulation
from scenarios.simulation import crash_points
from scenarios.simulation.explore import Batch
from scenarios.soak.commands import SoakCommand, soak
from scenarios.soak.soak import SoakOptions

signal.signal(signal.SIGINT, _interrupted)

DATA_HOME = Path("sagasim-data")
DEFAULT_SEEDS = 200
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SEED_DIGITS = 18
MIN_SOAK_MINUTES, MAX_SOAK_MINUTES = 0.1, 7 * 24 * 60.0
WRONG = (ScenarioError, DefinitionError, BrokerError, StorageError, ClusterError, OSError)
"""What is said in one line, with exit status 2."""
OUTPUT = Output()


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = options.command(options)
    except WRONG as error:
        hint = "; run_sim.py check DIR tells all that is wrong" if isinstance(error, CorruptError) else ""
        print(f"sagasim: {error}{hint}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if OUTPUT.problem:
        print(f"sagasim: standard output cannot be written: {OUTPUT.problem}", file=sys.stderr)
        return status or 2
    return status


# --- the words of the command line -----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="run_sim.py", description="Sagas on real NATS and LMDB, and a cluster to break them on.")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    _run_words(parser)
    parser.set_defaults(command=_run, name=library.FLAGSHIP)
    _run_words(_word(commands, "run", _run, "run a scenario, by name or from a file")).add_argument(
        "name", metavar="NAME|FILE.py"
    )
    _word(commands, "list", _list, "the scenarios, one line each")
    word = _word(commands, "explore", _explore, "live a scenario under many seeds, in simulation, each with faults")
    word.add_argument("name", metavar="NAME|FILE.py")
    word.add_argument("--orders", type=_positive, metavar="N", help="of each life; drawn by the seed unless given")
    word.add_argument("--concurrency", type=_positive, metavar="C")
    word.add_argument("--seeds", type=_positive, metavar="N", help="how many, from 0 (default: 200)")
    word.add_argument("--seed", type=_seed, metavar="S", help="this one; with --seeds, the first")
    word.add_argument("--crash-points", action="store_true", help="instead: crash at every boundary of every node")
    word.add_argument("--double", action="store_true", help="with --crash-points: and again at each one after that")
    word.add_argument("--at", default="", metavar="CASE", help="with --crash-points: only this one")
    word.add_argument("--failures", type=Path, default=Path(), metavar="DIR", help="where to write what failed")
    word = _word(commands, "replay", _replay, "run a recorded failure again, step by step")
    word.add_argument("failure", type=Path, metavar="FAILURE.json")
    word.add_argument("--mermaid", action="store_true", help="the sequence diagrams as Mermaid")
    word = _word(commands, "inspect", _inspect, "sagas by state, or one saga's timeline")
    word.add_argument("data", type=Path, metavar="DIR")
    word.add_argument("saga_id", nargs="?", metavar="SAGA_ID")
    word.add_argument("--state", choices=STATES, help="only sagas in this state")
    word.add_argument(
        "--since", type=_seconds, metavar="TIME", help="only what has changed in the last 90s, 5m, 1h, 2d"
    )
    word.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most so many a table")
    word.add_argument("--diff", nargs=2, type=int, metavar=("A", "B"), help="what is different after B from after A")
    forms = word.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const=JSON, default=TEXT, help="one JSON object")
    forms.add_argument("--mermaid", dest="form", action="store_const", const=MERMAID, help="a sequence diagram")
    word = _word(commands, "backup", _backup, "copy a run's directory while its nodes are at work")
    word.add_argument("data", type=Path, metavar="DIR")
    word.add_argument("out", type=Path, metavar="OUT")
    word = _word(commands, "check", _check, "is a run's directory sound? structure, orphans, impossible states")
    word.add_argument("data", type=Path, metavar="DIR")
    word.add_argument("--scenario", metavar="NAME|FILE.py", help="whose sagas and services, if DIR does not say")
    word.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    for action in ("resume", "cancel"):
        word = _word(commands, action, _operate, f"{action} one saga")
        word.add_argument("data", type=Path, metavar="DIR")
        word.add_argument("saga_id", metavar="SAGA_ID")
        word.set_defaults(action=action)
        _broker_words(word)
    word = _word(commands, "bench", _bench, "how fast it is, beside the limit of wire and disk in the same run")
    word.add_argument("--orders", type=_positive, metavar="N", help="a measurement (default: by the concurrency)")
    word.add_argument(
        "--concurrency", type=_positives, default=(1, 100, 1000), metavar="C,C,...", help="orders under way at a time"
    )
    word.add_argument("--only", type=_parts, default=parts.NAMES, metavar="PART,...", help=", ".join(parts.NAMES))
    word.add_argument("--json", type=Path, metavar="FILE", help="write all figures as one JSON object")
    word = _word(
        commands, "soak", _soak, "kill everything for a quarter of an hour, under load, and audit again and again"
    )
    word.add_argument(
        "name", nargs="?", default=library.SOAKED, metavar="NAME|FILE.py", help="whose load and services"
    )
    word.add_argument("--minutes", type=_minutes, default=15.0, metavar="M")
    word.add_argument("--seed", type=_seed, metavar="S")
    word.add_argument("--data", type=Path, metavar="DIR", help="where to keep it, also when it has passed")
    word.add_argument("--json", type=Path, metavar="FILE", help="write the table as one JSON object")
    word = _word(commands, "serve", _serve, "one node, to run beside others")
    word.add_argument("role", choices=(COORDINATOR, SERVICES))
    word.add_argument("--data", type=Path, required=True, metavar="DIR")
    word.add_argument("--scenario", default=library.FLAGSHIP, metavar="NAME|FILE.py", help="whose sagas and services")
    word.add_argument("--with-parent", action="store_true", help="stop when standard input ends; leave Ctrl-C to it")
    most = MAX_MAP_BYTES >> 20
    word.add_argument(
        "--max-map-mb", type=_positive, default=most, metavar="N", help="the most its store may grow to"
    )
    word.add_argument("--no-sync", action="store_true", help="do not wait for the disk: for measurements only")
    for name in ("--kill", "--url-file"):
        word.add_argument(name, help=argparse.SUPPRESS)
    word.add_argument("--troubled", action="store_true", help=argparse.SUPPRESS)
    _broker_words(word)
    _log_words(word)
    return parser


def _word(
    commands: "argparse._SubParsersAction[Parser]", name: str, command: object, text: str
) -> argparse.ArgumentParser:
    word: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    word.set_defaults(command=command)
    return word


def _run_words(word: argparse.ArgumentParser) -> argparse.ArgumentParser:
    word.add_argument("--orders", type=_positive, metavar="N")
    word.add_argument("--concurrency", type=_positive, metavar="C", help="orders under way at a time")
    word.add_argument("--seed", type=_seed, metavar="S")
    word.add_argument("--mode", choices=("real", "sim"), default="real")
    word.add_argument("--sequential", action="store_true", help="one step after another, instead of in parallel")
    word.add_argument("--chaos", action="store_true", help="with faults drawn by the seed, the same in both modes")
    word.add_argument("--data", type=Path, metavar="DIR", help="where to keep the run; resumes the one it holds")
    word.add_argument("--plain", action="store_true", help="plain lines instead of the dashboard")
    word.add_argument("--json", type=Path, metavar="FILE", help="write the result as one JSON object")
    word.add_argument("--report", type=Path, metavar="FILE.html", help="write one page with charts and timelines")
    word.add_argument("--trace", type=Path, metavar="FILE.json", help="write trace events, for Perfetto and Chrome")
    word.add_argument("--purge", action="store_true", help="with --nats: drop what another run has left there")
    _broker_words(word)
    _log_words(word)
    return word


def _broker_words(word: argparse.ArgumentParser) -> None:
    word.add_argument("--nats", metavar="URL", help="nats://[USER:PASSWORD@]HOST[:PORT] or tls://...")
    word.add_argument("--creds", type=Path, metavar="FILE", help="a NATS credentials file")
    word.add_argument("--tls-ca", type=Path, metavar="FILE")
    word.add_argument("--tls-cert", type=Path, metavar="FILE")
    word.add_argument("--tls-key", type=Path, metavar="FILE")


def _log_words(word: argparse.ArgumentParser) -> None:
    word.add_argument("--log-level", choices=logs.LEVELS, default="INFO")
    word.add_argument("--log-format", choices=logs.FORMATS, default="text")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r:.40}") from None


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def _positives(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(map(_positive, text.split(","))))


def _parts(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in parts.NAMES:
            raise argparse.ArgumentTypeError(f"there is no part {name!r:.40}; there are {', '.join(parts.NAMES)}")
    return tuple(names)


def _seed(text: str) -> int:
    """It stands in every saga id, hence its bound."""
    seed = _whole(text)
    if abs(seed) >= 10**MAX_SEED_DIGITS:
        raise argparse.ArgumentTypeError(f"must have at most {MAX_SEED_DIGITS} digits")
    return seed


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not MIN_SOAK_MINUTES <= minutes <= MAX_SOAK_MINUTES:
        bounds = f"{MIN_SOAK_MINUTES:g} to {MAX_SOAK_MINUTES:g}"
        raise argparse.ArgumentTypeError(f"must be a number of minutes, {bounds}, not {text!r:.40}")
    return minutes


def _seconds(text: str) -> float:
    """A time such as 90s, 5m, 1h or 2d."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit()) or unit not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 5m, 1h or 2d")
    return float(int(number) * _UNITS[unit])


def _access(options: argparse.Namespace) -> Access | None:
    if options.nats is None:
        if options.creds or options.tls_ca or options.tls_cert or options.tls_key:
            raise ScenarioError("--creds and --tls-* go with --nats")
        return None
    return Access(options.nats, options.creds, options.tls_ca, options.tls_cert, options.tls_key)


# --- the commands ----------------------------------------------------------------------------------------------


def _list(_: argparse.Namespace) -> int:
    width = max(map(len, library.names()))
    for name in library.names():
        scenario = library.find(name)
        _say(f"{name:{width}}  {' '.join(scenario.story.split())}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    difference = None if options.diff is None else (options.diff[0], options.diff[1])
    _say(
        inspect(
            options.data, options.saga_id, state=options.state, since_seconds=options.since, limit=options.limit,
            difference=difference, form=options.form,
        )
    )  # fmt: skip
    return 0


def _backup(options: argparse.Namespace) -> int:
    for line in backup(options.data, options.out):
        _say(line)
    return 0


def _check(options: argparse.Namespace) -> int:
    found = check_directory(options.data, options.scenario)
    lines = [as_json(findings_json(options.data, found))] if options.json else findings_lines(options.data, found)
    for line in lines:
        print(line)
    return 1 if found.total else 0


def _operate(options: argparse.Namespace) -> int:
    answer = operate(options.data, options.saga_id, options.action, _access(options))
    _say(answer.text)
    return 1 if answer.is_refused else 0


def _run(options: argparse.Namespace) -> int:
    scenario = library.find(options.name)
    reference = _reference(options.name)
    if options.json is not None:
        check_writable("--json", options.json)
    Outputs(options.report, options.trace).check(options.mode)
    access = _access(options)
    seed = _drawn(options.seed)
    if options.mode == "sim":
        return _run_simulated(scenario, reference, seed, options)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    run_options = RunOptions(
        reference=reference,
        data=(options.data or DATA_HOME / f"{scenario.name}-{stamp}-{os.getpid()}").resolve(),
        seed=seed,
        seed_given=options.seed is not None,
        orders=options.orders or scenario.orders,
        orders_given=options.orders is not None,
        concurrency=options.concurrency or scenario.concurrency,
        sequential=options.sequential,
        chaos=options.chaos,
        access=access,
        purge=options.purge,
        log_level=options.log_level,
        log_format=options.log_format,
        node_arguments=_node_arguments(options, access),
    )
    plain = options.plain or not dashboard.is_possible()
    run = Run(scenario, run_options, _say if plain else _ignore)
    try:
        with _private_files():
            result = asyncio.run(_watched(run, plain))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        words = ["run_sim.py", "run", options.name, "--data", str(run_options.data), *access_words(access)]
        print(f"stopped; go on with: {shlex.join(words)}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    for line in summary(result, run.view):
        _say(line)
    return _end(options, result, lambda: of_real_run(scenario, result, run.view))


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """What is made meanwhile, by the processes of a run too, is for its owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _run_simulated(scenario: Scenario, reference: str, seed: int, options: argparse.Namespace) -> int:
    if options.nats is not None or options.data is not None:
        raise ScenarioError("--nats and --data go with --mode real: a simulation keeps nothing and needs no broker")
    check_load(scenario, seed, sequential=options.sequential)
    orders, concurrency = options.orders or scenario.orders, options.concurrency or scenario.concurrency
    words = {"sequential": options.sequential, "chaos": options.chaos}
    plan = plan_of(scenario, seed, orders, concurrency, **words)
    result = simulation.run_simulated(scenario, seed, plan, tell=_say)
    repeat = again(reference, orders, concurrency, seed, **words, mode="sim")
    for line in simulation.summary_of_run(result, repeat):
        _say(line)
    return _end(options, result, lambda: of_simulated_run(scenario, result, repeat))


def _end(options: argparse.Namespace, result: Result, facts: Callable[[], Facts]) -> int:
    """Write what the run was asked to leave; the exit status."""
    if options.json is not None:
        try:
            options.json.write_text(result_json(result) + "\n")
        except OSError as error:
            raise ScenarioError(f"--json {options.json}: {error.strerror}") from None
    outputs = Outputs(options.report, options.trace)
    if outputs.wanted:
        for line in outputs.write(facts()):
            _say(line)
    return 0 if result.verdict == "passed" else 1


def _bench(options: argparse.Namespace) -> int:
    if options.json is not None:
        check_writable("--json", options.json)
    home = (DATA_HOME / f"bench-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}").resolve()
    try:
        with _private_files():
            return bench(BenchOptions(home, options.orders, options.concurrency, options.only, options.json), _say)
    except asyncio.CancelledError:
        return 143


def _soak(options: argparse.Namespace) -> int:
    if options.json is not None:
        check_writable("--json", options.json)
    data = options.data or DATA_HOME / f"soak-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    wanted = SoakOptions(_reference(options.name), data.resolve(), _drawn(options.seed), options.minutes)
    with _private_files():
        return soak(SoakCommand(library.find(options.name), wanted, options.data is not None, options.json), _say)


def _reference(name: str) -> str:
    """What names a scenario wherever one stands: a file by its whole path."""
    return str(Path(name).resolve()) if name.endswith(".py") else name


def _drawn(seed: int | None) -> int:
    """The seed, or one by chance."""
    return random.SystemRandom().randrange(10**6) if seed is None else seed


def _explore(options: argparse.Namespace) -> int:
    if options.crash_points:
        return crash_points.main(library.find(options.name), options.double, options.at, options.name, say=_say)
    if options.double or options.at:
        raise ScenarioError("--double and --at go with --crash-points")
    seeds = options.seeds or (DEFAULT_SEEDS if options.seed is None else 1)
    batch = Batch(
        options.name, options.seed or 0, seeds, options.orders, options.concurrency, directory=options.failures
    )
    return simulation.explore_command(batch, _say)


def _replay(options: argparse.Namespace) -> int:
    return simulation.replay_command(options.failure, _say, mermaid=options.mermaid)


async def _watched(run: Run, plain: bool) -> Result:
    run.prepare()
    _say(opening(run.view))
    for line in run.plan.fault_lines(REAL):
        _say(f"plan: {line}")
    watcher: Coroutine[object, object, None] = show(run.view, _say) if plain else dashboard.show(run.view, _say)
    watching = asyncio.create_task(watcher)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C: stop, resumable
    try:
        return await run.go()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _say(text: str) -> None:
    OUTPUT.say(text)


def _ignore(_: str) -> None:
    """The dashboard shows it."""


def _node_arguments(options: argparse.Namespace, access: Access | None) -> list[str]:
    """What the nodes of a run are told beyond where they are; the URL they read from the run's directory."""
    arguments = ["--log-level", options.log_level, "--log-format", options.log_format]
    return arguments if access is None else [*arguments, *access.file_words()]


def _serve(options: argparse.Namespace) -> int:
    os.umask(0o077)
    scenario = library.find(options.scenario)
    if options.troubled:
        scenario = troubled(scenario, options.data)
    url = options.nats
    if url is None:
        path = Path(options.url_file or options.data / URL_FILE)
        try:
            url = path.read_text().strip()
        except OSError:
            raise ScenarioError(f"give --nats URL: there is no {path.name} in {path.parent}") from None
    log = options.data / "logs" / f"{options.role}.log" if options.with_parent else None
    logs.set_up(log, level=options.log_level, form=options.log_format)
    try:
        kill = None if options.kill is None else from_text(options.kill)
    except (ValueError, TypeError):
        raise ScenarioError(f"--kill {options.kill} is not a kill") from None
    serving = Serving(
        role=options.role,
        data=options.data.resolve(),
        access=Access(url, options.creds, options.tls_ca, options.tls_cert, options.tls_key),
        scenario=scenario,
        kill=kill,
        with_parent=options.with_parent,
        sync=not options.no_sync,
        max_map_bytes=options.max_map_mb << 20,
    )
    try:
        return asyncio.run(serve(serving))
    except (LockedError, DiskError, BrokerError) as error:
        if not options.with_parent:
            raise
        print(f"sagasim: {error}", file=sys.stderr)
        return NOT_YET


if __name__ == "__main__":
    sys.exit(main())
