"""The scenarios of the house: one short file a story."""
