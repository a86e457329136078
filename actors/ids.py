"""Saga ids: they begin with their time of creation, so that they sort by it and pruning by age is one cut.

`0199f3a1b2c3-r00017`: twelve hexadecimal digits of milliseconds since 1970, a hyphen, and what makes it unique.
"""

import re

from broker.subjects import check_token

_ID = re.compile(r"[0-9a-f]{12}-[A-Za-z0-9_-]{1,51}")


def new_id(at_seconds: float, unique: str) -> str:
    """The id of a saga created at a time (wall clock, since 1970). Raises ValueError for an unusable `unique`."""
    return check_token("saga id", f"{id_floor(at_seconds)}-{unique}")


def id_floor(at_seconds: float) -> str:
    """What every id created at that time or later sorts after."""
    return f"{max(0, int(at_seconds * 1000)):012x}"


def is_id(value: str) -> bool:
    return _ID.fullmatch(value) is not None


def created_at_seconds(saga_id: str) -> float:
    return int(saga_id[:12], 16) / 1000
