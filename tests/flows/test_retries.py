"""Which failures of a stage are tried again."""

import httpx
import pytest
from prefect.states import Failed

from alpaca_farm_core.errors import ConfigError, OutOfMemoryError, StoreError, TrainingProcessError
from tasks.factory import failed_by_infrastructure


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError("peer"), True),
        (OSError(5, "Input/output error"), True),
        (httpx.ConnectError("no route"), True),
        (TrainingProcessError("A process was lost."), True),
        (StoreError("The disk is full."), False),
        (OutOfMemoryError("Memory ran out."), False),
        (ConfigError("Unknown setting."), False),
        (ValueError("a defect"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_infrastructure_is_tried_again(error, again):
    assert failed_by_infrastructure(None, None, Failed(data=error)) is again
