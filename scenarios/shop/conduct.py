"""Failures on demand: how a shop service is told to misbehave, and how it does."""

from actors.messages import Command
from scenarios.scenario import Conduct


class UnexpectedError(RuntimeError):
    """What a service that is told to throw throws: nothing that its author foresaw."""


class ShopService:
    """What the four services have in common: their conduct."""

    def __init__(self, conduct: Conduct | None = None) -> None:
        self._conduct = conduct or Conduct()

    def delay_seconds(self, _command: Command) -> float:
        return self._conduct.slow_seconds

    def act_up(self, command: Command) -> None:
        """The last line of every handler: throw, if that is what this service is told to do."""
        if command.attempt <= self._conduct.faulty_attempts:
            raise UnexpectedError(f"told to throw at attempt {command.attempt}")
