"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder of real recordings, or skip: it is no part of the project."""
    folder = os.environ.get("ECGBYTE_TEST_DATA")
    if not folder:
        pytest.skip("ECGBYTE_TEST_DATA is not set")
    return Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--allowed-skips",
        metavar="FILE",
        help="fail the run on any skip whose reason is not a line of this file",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests run last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


class SkipGate:
    """Collects the reasons of skipped tests and fails the run on those that are not allowed."""

    def __init__(self, allowed: set[str]) -> None:
        self.allowed = allowed
        self.refused: list[str] = []

    def _look_at(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        longrepr = report.longrepr
        reason = longrepr[2].removeprefix("Skipped: ") if isinstance(longrepr, tuple) else str(longrepr)
        if reason not in self.allowed:
            self.refused.append(f"{report.nodeid}: {reason}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._look_at(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._look_at(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.refused:
            terminalreporter.section("skips that are not allowed")
            for line in self.refused:
                terminalreporter.line(line)


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--allowed-skips")
    if path:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        allowed = {line for line in lines if line and not line.startswith("#")}
        config.pluginmanager.register(SkipGate(allowed), "skip-gate")
