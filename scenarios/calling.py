"""Calls what a scenario's author has written, and says what it raises in one line, with the place."""

import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from persistence.errors import StorageError
from persistence.transaction import Transaction
from scenarios.scenario import Domain, Findings, ScenarioError

MAX_REASON_CHARS = 300

P = ParamSpec("P")
T = TypeVar("T")


def call(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an author's `function`, which is `what`. What it raises becomes a ScenarioError, but for StorageErrors."""
    try:
        return function(*args, **kwargs)
    except (ScenarioError, StorageError):
        raise
    except (Exception, SystemExit) as error:
        raise ScenarioError(f"{_place(error)}{what}: {in_words(error)}") from error


def audit_of(domain: Domain, tx: Transaction, *, settled: bool) -> Findings:
    """What a domain's audit finds. Raises ScenarioError if it cannot work."""
    found = call("the domain's audit", domain.audit, tx, settled)
    if not isinstance(found, Findings):
        raise ScenarioError(f"domain {domain.name!r}: audit must give Findings, not {found!r:.80}")
    return found


def status_of(domain: Domain, tx: Transaction, saga_id: str) -> str:
    """What a domain says became of a request. Raises ScenarioError if it cannot tell."""
    found = call("the domain's status", domain.status, tx, saga_id)
    if not isinstance(found, str):
        raise ScenarioError(f"domain {domain.name!r}: status must give text, not {found!r:.80}")
    return found


def in_words(error: BaseException) -> str:
    """An exception in one line."""
    reason = " ".join(str(error).split())[:MAX_REASON_CHARS]
    name = type(error).__name__
    return f"{name}: {reason}" if reason else name


def _place(error: BaseException) -> str:
    """Where in the author's function it came from; "" if it did not get that far."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is ours
    return f"{frames[0].filename}, line {frames[0].lineno}: " if frames else ""
