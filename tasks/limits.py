"""The limit on training stages that run at once: a slot of a global concurrency limit, held while one trains.

Where the operator names no limit (`ALPACA_FARM_TRAINING_LIMIT`), as on the command line, nothing is asked.
"""

from __future__ import annotations

import contextlib
import os

from prefect.concurrency.sync import concurrency

from alpaca_farm_core.pipeline.stage import Stage

LIMIT_VARIABLE = "ALPACA_FARM_TRAINING_LIMIT"
_LEASE_SECONDS = 60.0  # a killed holder keeps its slot for so long; Prefect's default is 300


def training_slot(stage: Stage) -> contextlib.AbstractContextManager[None]:
    """Hold a slot if the stage trains; strict, as a limit that does not exist would limit nothing."""
    limit = os.environ.get(LIMIT_VARIABLE, "")
    if not limit or not stage.trains:
        return contextlib.nullcontext()
    # Hours of training are not given up because the server was away when a lease had to be renewed.
    return concurrency(
        limit, occupy=1, lease_duration=_LEASE_SECONDS, strict=True, raise_on_lease_renewal_failure=False
    )
