"""The scenarios of the house: one short file a story."""

FLAGSHIP, SOAKED = "everything", "every-reason"
"""Which of them is run, and which is soaked, if none is named."""
