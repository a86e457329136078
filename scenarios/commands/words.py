"""The words of the command line. They are loaded for every command, hence import nothing that takes long."""

import argparse
from pathlib import Path
from typing import NoReturn, TypeAlias

from scenarios import logs, stories
from scenarios.bench_words import NAMES, USUAL
from scenarios.inspection_words import JSON, MERMAID, STATES, TEXT
from scenarios.places import COORDINATOR, SERVICES

MAX_SEED_DIGITS = 18
MAX_PORT = 65535
MIN_SOAK_MINUTES, MAX_SOAK_MINUTES = 0.1, 7 * 24 * 60.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def parser() -> argparse.ArgumentParser:
    """The command line. What it parses has `command`: the word of the command that is given."""
    whole = Parser(prog="run_sim.py", description="Sagas on real NATS and LMDB, and a cluster to break them on.")
    commands = whole.add_subparsers(metavar="COMMAND", parser_class=Parser)
    _run_words(whole)
    whole.set_defaults(command="run", name=stories.FLAGSHIP)
    _run_words(_word(commands, "run", "run a scenario, by name or from a file")).add_argument(
        "name", metavar="NAME|FILE.py"
    )
    _word(commands, "list", "the scenarios, one line each")
    _simulation_words(commands)
    _directory_words(commands)
    _long_words(commands)
    _serve_words(commands)
    return whole


def _simulation_words(commands: Commands) -> None:
    word = _word(commands, "explore", "live a scenario under many seeds, in simulation, each with faults")
    word.add_argument("name", metavar="NAME|FILE.py")
    word.add_argument("--orders", type=_positive, metavar="N", help="of each life; drawn by the seed unless given")
    word.add_argument("--concurrency", type=_positive, metavar="C")
    word.add_argument("--seeds", type=_positive, metavar="N", help="how many, from 0 (default: 200)")
    word.add_argument("--seed", type=_seed, metavar="S", help="this one; with --seeds, the first")
    word.add_argument("--crash-points", action="store_true", help="instead: crash at every boundary of every node")
    word.add_argument("--double", action="store_true", help="with --crash-points: and again at each one after that")
    word.add_argument("--at", default="", metavar="CASE", help="with --crash-points: only this one")
    word.add_argument("--failures", type=_path, default=Path(), metavar="DIR", help="where to write what failed")
    word = _word(commands, "replay", "run a recorded failure again, step by step")
    word.add_argument("failure", type=_path, metavar="FAILURE.json")
    word.add_argument("--mermaid", action="store_true", help="the sequence diagrams as Mermaid")


def _directory_words(commands: Commands) -> None:
    word = _word(commands, "inspect", "sagas by state, or one saga's timeline")
    word.add_argument("data", type=_path, metavar="DIR")
    word.add_argument("saga_id", nargs="?", metavar="SAGA_ID")
    _scenario_word(word)
    word.add_argument("--state", choices=STATES, help="only sagas in this state")
    word.add_argument(
        "--since", type=_seconds, metavar="TIME", help="only what has changed in the last 90s, 5m, 1h, 2d"
    )
    word.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most so many a table")
    word.add_argument("--diff", nargs=2, type=int, metavar=("A", "B"), help="what is different after B from after A")
    forms = word.add_mutually_exclusive_group()
    forms.add_argument("--json", dest="form", action="store_const", const=JSON, default=TEXT, help="one JSON object")
    forms.add_argument("--mermaid", dest="form", action="store_const", const=MERMAID, help="a sequence diagram")
    word = _word(commands, "backup", "copy a run's directory while its nodes are at work")
    word.add_argument("data", type=_path, metavar="DIR")
    word.add_argument("out", type=_path, metavar="OUT")
    word = _word(commands, "check", "is a run's directory sound? structure, orphans, impossible states")
    word.add_argument("data", type=_path, metavar="DIR")
    _scenario_word(word)
    word.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    for action in ("resume", "cancel"):
        word = _word(commands, action, f"{action} one saga")
        word.add_argument("data", type=_path, metavar="DIR")
        word.add_argument("saga_id", metavar="SAGA_ID")
        _scenario_word(word)
        _broker_words(word)


def _scenario_word(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--scenario", metavar="NAME|FILE.py", help="whose sagas and services, if DIR does not say, as of served nodes"
    )


def _long_words(commands: Commands) -> None:
    word = _word(commands, "bench", "how fast it is, beside the limit of wire and disk in the same run")
    word.add_argument("--orders", type=_positive, metavar="N", help="a measurement (default: by the concurrency)")
    word.add_argument(
        "--concurrency", type=_positives, default=(1, 100, 1000), metavar="C,C,...", help="orders under way at a time"
    )
    word.add_argument("--only", type=_parts, default=USUAL, metavar="PART,...", help=", ".join(NAMES))
    word.add_argument("--json", type=_path, metavar="FILE", help="write all figures as one JSON object")
    word = _word(commands, "soak", "kill everything for a quarter of an hour, under load, and audit again and again")
    word.add_argument(
        "name", nargs="?", default=stories.SOAKED, metavar="NAME|FILE.py", help="whose load and services"
    )
    word.add_argument("--minutes", type=_minutes, default=15.0, metavar="M")
    word.add_argument("--seed", type=_seed, metavar="S")
    word.add_argument("--data", type=_path, metavar="DIR", help="where to keep it, also when it has passed")
    word.add_argument("--json", type=_path, metavar="FILE", help="write the table as one JSON object")


def _serve_words(commands: Commands) -> None:
    word = _word(commands, "serve", "one node, to run beside others")
    word.add_argument("role", choices=(COORDINATOR, SERVICES))
    word.add_argument("--data", type=_path, required=True, metavar="DIR")
    word.add_argument("--scenario", default=stories.FLAGSHIP, metavar="NAME|FILE.py", help="whose sagas and services")
    word.add_argument("--with-parent", action="store_true", help="stop when standard input ends; leave Ctrl-C to it")
    word.add_argument("--max-map-mb", type=_positive, metavar="N", help="the most its store may grow to")
    word.add_argument(
        "--keep", type=_seconds, metavar="TIME",
        help="how long to keep finished sagas (default: 7d), and what services answered twice as long, but 1d",
    )  # fmt: skip
    word.add_argument("--no-sync", action="store_true", help="do not wait for the disk: for measurements only")
    word.add_argument("--metrics", type=_address, metavar="[HOST:]PORT", help="figures for Prometheus, at /metrics")
    _trace_words(word)
    for name in ("--kill", "--url-file"):
        word.add_argument(name, help=argparse.SUPPRESS)
    word.add_argument("--troubled", action="store_true", help=argparse.SUPPRESS)
    _broker_words(word)
    _log_words(word)


def _word(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    word: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    word.set_defaults(command=name)
    return word


def _run_words(word: argparse.ArgumentParser) -> argparse.ArgumentParser:
    word.add_argument("--orders", type=_positive, metavar="N")
    word.add_argument("--concurrency", type=_positive, metavar="C", help="orders under way at a time")
    word.add_argument("--seed", type=_seed, metavar="S")
    word.add_argument("--mode", choices=("real", "sim"), default="real")
    word.add_argument("--sequential", action="store_true", help="one step after another, instead of in parallel")
    word.add_argument("--chaos", action="store_true", help="with faults drawn by the seed, the same in both modes")
    word.add_argument("--data", type=_path, metavar="DIR", help="where to keep the run; resumes the one it holds")
    word.add_argument("--plain", action="store_true", help="plain lines instead of the dashboard")
    word.add_argument("--json", type=_path, metavar="FILE", help="write the result as one JSON object")
    word.add_argument("--report", type=_path, metavar="FILE.html", help="write one page with charts and timelines")
    word.add_argument("--trace", type=_path, metavar="FILE.json", help="write trace events, for Perfetto and Chrome")
    _trace_words(word)
    word.add_argument("--purge", action="store_true", help="with --nats: drop what another run has left there")
    _broker_words(word)
    _log_words(word)
    return word


def _broker_words(word: argparse.ArgumentParser) -> None:
    word.add_argument("--nats", metavar="URL", help="nats://[USER:PASSWORD@]HOST[:PORT] or tls://...")
    word.add_argument("--creds", type=_path, metavar="FILE", help="a NATS credentials file")
    word.add_argument("--tls-ca", type=_path, metavar="FILE")
    word.add_argument("--tls-cert", type=_path, metavar="FILE")
    word.add_argument("--tls-key", type=_path, metavar="FILE")


def _trace_words(word: argparse.ArgumentParser) -> None:
    text = "tell sagas as OpenTelemetry spans, by OTLP over HTTP, to where the variables OTEL_* say"
    word.add_argument("--otel", action="store_true", help=text)


def _log_words(word: argparse.ArgumentParser) -> None:
    word.add_argument("--log-level", choices=logs.LEVELS, default="INFO")
    word.add_argument("--log-format", choices=logs.FORMATS, default="text")


# --- what they take ---------------------------------------------------------------------------------------------


def _path(text: str) -> Path:
    """An empty one, as of a variable that is not set, would be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a directory, and is empty")
    return Path(text)


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
    wanted = text.split(",")
    for name in wanted:
        if name not in NAMES:
            raise argparse.ArgumentTypeError(f"there is no part {name!r:.40}; there are {', '.join(NAMES)}")
    return tuple(wanted)


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


def _address(text: str) -> tuple[str, int]:
    """A host and port to listen on; without a host only this machine can reach it."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r:.80} is no address such as 9100, 0.0.0.0:9100 or [::1]:9100")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)
