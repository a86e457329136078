"""A cluster in one process and in virtual time: one seed, one run, the same one every time."""
