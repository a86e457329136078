"""What `bench` can be asked for: its parts by name, in their order."""

LOAD = "load"
NAMES = (LOAD, "sequential", "failing", "alone", "recovery", "memory")
