"""sagasim's command line, from its first moment to its exit status; its words are in `scenarios/commands`."""

# ruff: noqa: E402 - the first thing is to let Ctrl-C end quietly what is still being loaded
import signal

_interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import sys
from collections.abc import Iterator, Sequence

from actors.definition import DefinitionError
from broker.port import BrokerError
from persistence.errors import CorruptError, StorageError
from scenarios.commands.loading import command_of
from scenarios.commands.output import OUTPUT
from scenarios.commands.words import parser
from scenarios.errors import ClusterError, ScenarioError

signal.signal(signal.SIGINT, _interrupted)

WRONG = (ScenarioError, DefinitionError, BrokerError, StorageError, ClusterError, OSError)
"""What is said in one line, with exit status 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    with _ended_by_ctrl_c():
        options = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
        command = command_of(options)
    try:
        status = command(options)
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


@contextlib.contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process at once and quietly: nothing has been begun."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
