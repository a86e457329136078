"""What all tests share: the project's own pytest plugin, from the tree where its entry point has not loaded it."""

from collections.abc import Generator
from importlib.metadata import entry_points

import pytest

PLUGIN = "scenarios.pytest_plugin"
pytest_plugins = () if any(point.value == PLUGIN for point in entry_points(group="pytest11")) else (PLUGIN,)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Some tests log what is no text; a report with it could not be sent from the process that has run the test."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
