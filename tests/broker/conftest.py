"""What the tests of the broker share: the servers to test against, and the labs for the port's contract."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.server import find_binary
from tests.broker.labs import Lab, RealLab
from tests.broker.simulated_lab import SimulatedLab


def _binaries() -> dict[str, Path]:
    """The packaged server, and an old one beside it when SAGASIM_OLD_NATS_SERVER names its binary."""
    old = os.environ.get("SAGASIM_OLD_NATS_SERVER")
    return {"packaged": find_binary()} | ({"old": Path(old)} if old else {})


@pytest.fixture(params=_binaries().values(), ids=tuple(_binaries()))
def binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture(params=["simulated", *_binaries()])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Every broker there is: what a contract demands of one, it demands of all."""
    if request.param == "simulated":
        yield SimulatedLab(seed=1)
        return
    real = RealLab(_binaries()[request.param], tmp_path)
    yield real
    real.close()
