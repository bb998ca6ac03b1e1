"""One Prefect server for all flow tests, started once per session."""

import logging

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server():
    with prefect_test_harness(server_startup_timeout=60):
        yield


def pytest_sessionfinish():
    """The server is stopped when the interpreter exits, and says so to a stream that pytest has closed by then."""
    logging.getLogger("prefect").handlers.clear()
