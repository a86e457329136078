"""What several commands do alike."""

import contextlib
import os
import random
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from scenarios.errors import ScenarioError
from scenarios.serving import Access

_DATA_HOME = Path("sagasim-data")


def new_directory(name: str) -> Path:
    """Where to keep what nobody has named a directory for."""
    return _DATA_HOME / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """What is made meanwhile, by the processes of a run too, is for its owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM end a simulation in good order too: its stores lie in memory, and would stay there."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def absolute(reference: str) -> str:
    """What names a scenario wherever one stands: a file by its whole path."""
    return str(Path(reference).resolve()) if reference.endswith(".py") else reference


def drawn(seed: int | None) -> int:
    """The seed, or one by chance."""
    return random.SystemRandom().randrange(10**6) if seed is None else seed


def access_of(options: Namespace) -> Access | None:
    """How to get into the broker that is named; None if none is. Raises ScenarioError."""
    if options.nats is None:
        if options.creds or options.tls_ca or options.tls_cert or options.tls_key:
            raise ScenarioError("--creds and --tls-* go with --nats")
        return None
    return Access(options.nats, options.creds, options.tls_ca, options.tls_cert, options.tls_key)
