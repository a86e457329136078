"""Faults: one vocabulary for both worlds, what a seed draws of it, and who carries it out on real processes."""
