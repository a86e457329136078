"""What all tests share: the project's own pytest plugin, from the tree where its entry point has not loaded it."""

from importlib.metadata import entry_points

PLUGIN = "scenarios.pytest_plugin"
pytest_plugins = () if any(point.value == PLUGIN for point in entry_points(group="pytest11")) else (PLUGIN,)
