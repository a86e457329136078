"""sagasim's command line."""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import NoReturn

from actors.definition import DefinitionError
from broker.port import BrokerError
from persistence.errors import LockedError, StorageError
from scenarios import dashboard, library, logs
from scenarios.cluster import NOT_YET, ClusterError
from scenarios.faults import from_text
from scenarios.inspection import STATES
from scenarios.inspection_text import inspect
from scenarios.operate import operate
from scenarios.plain import opening, show, summary
from scenarios.runner import URL_FILE, Run, RunOptions, result_json
from scenarios.scenario import COORDINATOR, SERVICES, Result, Scenario, ScenarioError
from scenarios.serving import Access, Serving, serve
from scenarios.simulation import commands as simulation
from scenarios.simulation import crash_points
from scenarios.simulation.explore import Batch

DATA_HOME = Path("sagasim-data")
DEFAULT_SEEDS = 200
WRONG = (ScenarioError, DefinitionError, BrokerError, StorageError, ClusterError)
"""What is said in one line, with exit status 2."""


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
        print(f"sagasim: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; do not fail again when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    word.add_argument("--seed", type=int, metavar="S", help="this one; with --seeds, the first")
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
    word.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most so many a table")
    word.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    for action in ("resume", "cancel"):
        word = _word(commands, action, _operate, f"{action} one saga")
        word.add_argument("data", type=Path, metavar="DIR")
        word.add_argument("saga_id", metavar="SAGA_ID")
        word.set_defaults(action=action)
        _broker_words(word)
    word = _word(commands, "serve", _serve, "one node, to run beside others")
    word.add_argument("role", choices=(COORDINATOR, SERVICES))
    word.add_argument("--data", type=Path, required=True, metavar="DIR")
    word.add_argument("--scenario", default=library.FLAGSHIP, metavar="NAME|FILE.py", help="whose sagas and services")
    word.add_argument("--with-parent", action="store_true", help="stop when standard input ends; leave Ctrl-C to it")
    word.add_argument("--no-sync", action="store_true", help="do not wait for the disk: for measurements only")
    word.add_argument("--kill", help=argparse.SUPPRESS)
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
    word.add_argument("--seed", type=int, metavar="S")
    word.add_argument("--mode", choices=("real", "sim"), default="real")
    word.add_argument("--sequential", action="store_true", help="one step after another, instead of in parallel")
    word.add_argument("--data", type=Path, metavar="DIR", help="where to keep the run; resumes the one it holds")
    word.add_argument("--plain", action="store_true", help="plain lines instead of the dashboard")
    word.add_argument("--json", type=Path, metavar="FILE", help="write the result as one JSON object")
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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


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
        print(f"{name:{width}}  {' '.join(scenario.story.split())}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    if options.saga_id is not None and options.state is not None:
        raise ScenarioError("--state goes without a SAGA_ID")
    print(
        inspect(
            options.data, options.saga_id, state=options.state, limit=options.limit, as_json=options.json
        )
    )  # fmt: skip
    return 0


def _operate(options: argparse.Namespace) -> int:
    print(operate(options.data, options.saga_id, options.action, _access(options)))
    return 0


def _run(options: argparse.Namespace) -> int:
    scenario = library.find(options.name)
    reference = str(Path(options.name).resolve()) if options.name.endswith(".py") else options.name
    if options.json is not None and not options.json.parent.is_dir():
        raise ScenarioError(f"--json {options.json}: there is no such directory")
    access = _access(options)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.mode == "sim":
        return _run_simulated(scenario, seed, options)
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
        access=access,
        purge=options.purge,
        log_level=options.log_level,
        log_format=options.log_format,
        node_arguments=_node_arguments(options),
    )
    plain = options.plain or not dashboard.is_possible()
    run = Run(scenario, run_options, _say if plain else _ignore)
    try:
        result = asyncio.run(_watched(run, plain))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        print(f"stopped; go on with: run_sim.py run {options.name} --data {run_options.data}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    for line in summary(result, run.view):
        print(line)
    return _end(options, result)


def _run_simulated(scenario: Scenario, seed: int, options: argparse.Namespace) -> int:
    if options.nats is not None or options.data is not None:
        raise ScenarioError("--nats and --data go with --mode real: a simulation keeps nothing and needs no broker")
    orders, concurrency = options.orders or scenario.orders, options.concurrency or scenario.concurrency
    result = simulation.run_simulated(
        scenario, seed, orders, concurrency, sequential=options.sequential, tell=_say
    )  # fmt: skip
    for line in simulation.summary_of_run(result):
        print(line)
    return _end(options, result)


def _end(options: argparse.Namespace, result: Result) -> int:
    if options.json is not None:
        try:
            options.json.write_text(result_json(result) + "\n")
        except OSError as error:
            raise ScenarioError(f"--json {options.json}: {error.strerror}") from None
    return 0 if result.verdict == "passed" else 1


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
    _say(opening(run.view))
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
    print(text, flush=True)


def _ignore(_: str) -> None:
    """The dashboard shows it."""


def _node_arguments(options: argparse.Namespace) -> list[str]:
    """What the nodes of a run are told beyond where they are; the URL they read from the run's directory."""
    arguments = ["--log-level", options.log_level, "--log-format", options.log_format]
    for name in ("creds", "tls_ca", "tls_cert", "tls_key"):
        path = getattr(options, name)
        if path is not None:
            arguments += [f"--{name.replace('_', '-')}", str(path.resolve())]
    return arguments


def _serve(options: argparse.Namespace) -> int:
    scenario = library.find(options.scenario)
    url = options.nats
    if url is None:
        try:
            url = (options.data / URL_FILE).read_text().strip()
        except OSError:
            raise ScenarioError(f"give --nats URL: there is no {URL_FILE} in {options.data}") from None
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
    )
    try:
        return asyncio.run(serve(serving))
    except (LockedError, BrokerError) as error:
        if not options.with_parent:
            raise
        print(f"sagasim: {error}", file=sys.stderr)
        return NOT_YET


if __name__ == "__main__":
    sys.exit(main())
