"""What `bench` can be asked for: its parts by name, in their order."""

LOAD = "load"
GROWTH = "growth"
USUAL = (LOAD, "sequential", "failing", "alone", "recovery", "memory")
NAMES = (*USUAL, GROWTH)  # growth takes some ten minutes and 4 GB of disk: only if it is asked for
