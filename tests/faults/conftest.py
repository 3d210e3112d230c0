"""The brokers of the fault runs, and the table at the end of a test run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.runner import Outcome, table
from tests.faults.world import Parts

OUTCOMES = pytest.StashKey[list[Outcome]]()


@pytest.fixture(scope="session")
def parts() -> Iterator[Parts]:
    """Kafka and Redis for all fault runs of the session; each run leaves them as it found them."""
    with Parts() as started:
        yield started


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    """Where each run's outcome goes, for the table."""
    return request.config.stash.setdefault(OUTCOMES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if found := config.stash.get(OUTCOMES, []):
        terminalreporter.section("faults")
        terminalreporter.write_line(table(found))
