"""Hears every call that a block of code makes, and notes those whose answer another run would not get."""

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from types import FrameType, ModuleType
from typing import Any

_GLOBAL_RANDOM = random._inst
_HARMLESS = {
    ("scenarios.simulation.simulate", "monotonic"),  # how long a life took, for people
    ("uuid", "urandom"),  # Pykka names each actor so; nothing of ours reads that name
}


@contextmanager
def outside_calls() -> Iterator[list[str]]:
    """The calls for the time, for sleep, for the system's chance or for the global one, each with its caller.

    A profiler's hook is told of each, however it was imported; a patched name would miss `from time import time`.
    """
    found: list[str] = []

    def hear(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            what = _asked(getattr(called, "__self__", None), called)
        else:
            # Without a seed a generator takes one from the system.
            seeded = frame.f_code is random.Random.seed.__code__ and event == "call"
            what = "seed" if seeded and frame.f_locals["a"] is None else ""
        caller = str(frame.f_globals.get("__name__"))
        if what and (caller, what) not in _HARMLESS:
            found.append(f"{what} in {caller}")

    sys.setprofile(hear)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _asked(owner: object, called: Any) -> str:
    """The name of a builtin that asks the world outside; "" for any other."""
    name = str(called.__name__)
    if isinstance(owner, ModuleType):
        return name if owner is time or called is os.urandom else ""
    if owner is _GLOBAL_RANDOM or (isinstance(owner, type) and issubclass(owner, date) and name in _NOW):
        return name
    return ""


_NOW = ("now", "today", "utcnow")
