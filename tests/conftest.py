"""Fixtures shared by all tests: every test has its own store, and no key or endpoint of the user's."""

import logging
import signal

import pytest

from alpaca_farm_core.artifacts.store import Store

# A shell that starts the tests in its background has told them, and all they start, to ignore interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def pytest_sessionfinish():
    """A temporary Prefect server ends with the interpreter, and says so to a stream that pytest has closed by then."""
    logging.getLogger("prefect").disabled = True
