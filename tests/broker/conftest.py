"""What the tests of the broker share: the servers to test against, and the labs for the port's contract."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.server import find_binary
from tests.broker.labs import Lab, RealLab


def _binaries() -> list[Path]:
    """The packaged server, and an old one beside it when SAGASIM_OLD_NATS_SERVER names its binary."""
    old = os.environ.get("SAGASIM_OLD_NATS_SERVER")
    return [find_binary(), Path(old)] if old else [find_binary()]


@pytest.fixture(params=_binaries(), ids=("packaged", "old")[: len(_binaries())])
def binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def lab(binary: Path, tmp_path: Path) -> Iterator[Lab]:
    """The port, however it is kept. A stand-in for the real broker joins here."""
    real = RealLab(binary, tmp_path)
    yield real
    real.close()
