"""One `alpaca-farm up` for all tests that do not break it."""

import pytest

from tests.services.farm import running


@pytest.fixture(scope="package")
def up(tmp_path_factory):
    with running(tmp_path_factory.mktemp("up"), environment={"ALPACA_FARM_FORM_URLS": "http://127.0.0.1:1/"}) as farm:
        yield farm
