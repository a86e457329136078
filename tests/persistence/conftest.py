from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence import journal, snapshots
from persistence.environment import Environment
from persistence.ledger import table
from tests.persistence.bench import Bench

TABLES = ("a", "b", *snapshots.TABLES, *journal.TABLES, table("stock"))
MakeEnvironment = Callable[..., Environment]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeEnvironment]:
    """Open the test's database, without fsync unless asked; closed when the test ends."""
    opened: list[Environment] = []

    def open_environment(*, sync: bool = False, **options: Any) -> Environment:
        environment = Environment.open(tmp_path / "node", TABLES, sync=sync, **options)
        opened.append(environment)
        return environment

    yield open_environment
    for environment in opened:
        environment.close()


@pytest.fixture
def environment(make: MakeEnvironment) -> Environment:
    return make()


@pytest.fixture
def bench(environment: Environment) -> Bench:
    return Bench(environment)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text
