"""`Lag`: which services are behind, told by how long their answers take."""

from typing import Final

BEHIND_FROM: Final = 0.3
"""A service is behind when an answer took so much of its step's timeout: with twice or three times as much to do,
sagas would ask again what is under way already, and make it worse."""
BEHIND_UNTIL: Final = 0.15
KNOWN_SECONDS: Final = 5.0
"""What was noticed of a service longer ago says nothing any more."""


class Lag:
    """What a coordinator's sagas notice of the services, put together. Times are the loop's."""

    def __init__(self) -> None:
        self._behind: dict[str, float] = {}  # services, and when that was noticed last
        self._silent: dict[str, float] = {}  # services, and when they would be behind if no answer had come by then

    def asked(self, service: str, timeout_seconds: float, now: float) -> None:
        """A command has been sent."""
        if now - self._silent.get(service, -KNOWN_SECONDS) >= KNOWN_SECONDS:
            self._silent[service] = now + BEHIND_FROM * timeout_seconds

    def answered(self, service: str, waited_seconds: float, timeout_seconds: float, now: float) -> None:
        """An answer has come, so long after it was asked for; or one is overdue."""
        if waited_seconds < timeout_seconds:
            self._silent.pop(service, None)
        if waited_seconds > BEHIND_FROM * timeout_seconds:
            self._behind[service] = now
        elif self._behind and waited_seconds < BEHIND_UNTIL * timeout_seconds:
            self._behind.pop(service, None)

    def is_long(self, now: float) -> bool:
        """Whether any service is behind."""
        noticed = (*self._behind.values(), *self._silent.values())
        return any(0 <= now - at < KNOWN_SECONDS for at in noticed)
