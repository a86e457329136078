"""Who watches the watchers: bugs that are put into a copy of the engine, each of which the simulation must find."""
