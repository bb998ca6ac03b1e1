"""Which failures of a stage are tried again."""

import dataclasses

import httpx
import pytest
from prefect import flow
from prefect.states import Failed

from alpaca_farm_core.errors import ConfigError, OutOfMemoryError, StoreError, TrainingProcessError
from alpaca_farm_core.pipeline.stage import StageResult
from tasks.factory import Place, failed_by_infrastructure, stage_task
from tests.pipeline import toy


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


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(("error", "tries"), [(ConnectionResetError("peer"), 3), (ValueError("a defect"), 1)])
def test_a_stage_under_prefect(store, error, tries):
    tried = []

    def body(context):
        tried.append(context)
        if len(tried) < 3:
            raise error
        return StageResult()

    task = stage_task(dataclasses.replace(toy.NUMBERS, run=body)).with_options(retry_delay_seconds=0)

    @flow
    def once():
        return task(
            title="numbers", config={}, inputs={}, place=Place(str(store.root), "numbers", {}), return_state=True
        )

    state = once(return_state=True)
    assert len(tried) == tries
    assert state.is_completed() == (tries == 3)
