"""The whole of `alpaca-farm up` as one object: start everything, keep it running, stop everything.

In: a store, an address and counts. Out: a server with UI, pools, limits, deployments and workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.training.children import adopt_orphans
from flows.services.processes import Service, end, orphans, reap_orphans, stop
from flows.services.register import POOLS, register_all
from flows.services.server import (
    TRAINING_LIMIT,
    Address,
    client_environment,
    fresh_log_folder,
    start_server,
    start_worker,
    wait_for_server,
)
from tasks.limits import LIMIT_VARIABLE

STOP_SECONDS = 25.0
_RESTARTS, _RESTARTS_SECONDS = 5, 600.0


@dataclass
class Farm:
    """Server and workers of one store.

    Attributes:
        store: Where the workers' runs keep artifacts.
        address: Where the server listens.
        workers: Workers of each pool.
        trainings: Training stages that may run at the same time.
        say: Where to report.
        services: What runs now; the server first.
    """

    store: Store
    address: Address
    workers: int = 1
    trainings: int = 1
    say: Callable[[str], None] = lambda message: None
    services: list[Service] = field(default_factory=list)

    def start(self) -> None:
        """Start and register everything; returns when runs can be started.

        Raises:
            FarmError: the port is taken, or a part does not start.
        """
        adopt_orphans()  # runs of a worker that was killed
        self._logs = fresh_log_folder(self.store.root)
        self._environment = client_environment(self.address, self.store.location) | {LIMIT_VARIABLE: TRAINING_LIMIT}
        self._starters: list[Callable[[], Service]] = [self._start_server]
        self._restarts: list[float] = []
        self.services.append(self._start_server())
        wait_for_server(self.services[0], self.address)
        here = {PREFECT_API_URL: self.address.api, PREFECT_API_AUTH_STRING: self.address.auth or None}
        with temporary_settings(here):
            register_all(self.trainings, self._environment)
        for pool in POOLS:
            for number in range(1, self.workers + 1):
                self._start(self._worker_starter(f"{pool}-{number}", pool))

    def watch(self) -> None:
        """Start again what has died; runs that a dead worker left go on, and are reaped when they end.

        Raises:
            FarmError: services keep dying.
        """
        reap_orphans(self.services)
        for index, service in enumerate(self.services):
            if service.is_alive():
                continue
            now = time.monotonic()
            self._restarts = [*(then for then in self._restarts if now - then < _RESTARTS_SECONDS), now]
            if len(self._restarts) > _RESTARTS:
                raise FarmError(f"The {service.name} keeps dying:\n{service.last_lines()}", f"See {service.log}.")
            self.say(f"The {service.name} died ({service.process.returncode}); starting it again.")
            self.services[index] = self._starters[index]()

    def stop(self, patience_seconds: float = STOP_SECONDS) -> None:
        """Stop workers, then the server, and every process they started."""
        workers: Sequence[Service] = self.services[1:]
        stop(workers, patience_seconds)
        end(orphans(self.services), patience_seconds)
        stop(self.services[:1], patience_seconds)
        self.services.clear()

    def _start(self, starter: Callable[[], Service]) -> None:
        self._starters.append(starter)
        self.services.append(starter())

    def _start_server(self) -> Service:
        return start_server(self.address, self.store.location, self._logs / "server.log")

    def _worker_starter(self, name: str, pool: str) -> Callable[[], Service]:
        return lambda: start_worker(name, pool, self._environment, self._logs / f"worker-{name}.log")
