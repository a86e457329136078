"""The live screen of a run, and the keys that steer it."""
