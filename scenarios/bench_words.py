"""What `bench` can be asked for: its parts by name, in their order."""

LOAD = "load"
GROWTH = "growth"
USUAL = (LOAD, "sequential", "failing", "alone", "recovery", "memory")
NAMES = (*USUAL, GROWTH)  # growth takes some fifteen minutes and 8 GB of disk: only if it is asked for
