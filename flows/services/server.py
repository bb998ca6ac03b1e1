"""Prefect's server and workers as services: ports, environments, and the wait until they answer."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

import flows
from alpaca_farm_core.artifacts.store import STORE_VARIABLE
from alpaca_farm_core.errors import FarmError, UsageError
from flows.services.processes import Service, start_service
from flows.services.quiet import QUIET

ROOT = Path(flows.__file__).parent.parent
"""Folder from which `flows`, `tasks` and `deployments/` are found, in a checkout and when installed."""

HOST = "127.0.0.1"
TRAINING_LIMIT = "training"
"""Name of the global limit of which every training stage holds one slot."""

HEARTBEAT_SECONDS = 30
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Address:
    """Where the server listens, and who may use it.

    Attributes:
        port: On 127.0.0.1.
        auth: `user:password`, or empty for everybody on this machine.
    """

    port: int
    auth: str = ""

    @property
    def ui(self) -> str:
        """Address of the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> str:
        """Address of the API."""
        return f"{self.ui}/api"


def client_environment(address: Address, store: str | Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment of workers and of commands that talk to the server."""
    environment = {
        **QUIET,
        **base,
        "PREFECT_API_URL": address.api,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # a run that was asked for starts at once
        STORE_VARIABLE: str(store),
        # `prefect deploy` puts it where prefect.yaml says {{ $PWD }}.
        "PWD": str(ROOT),
    }
    if address.auth:
        environment["PREFECT_API_AUTH_STRING"] = address.auth
    return environment


def start_server(address: Address, store: str | Path, log: Path) -> Service:
    """Start the server; it answers only after `wait_for_server`.

    Raises:
        UsageError: something listens on the port already.
    """
    _require_free(address.port)
    environment = client_environment(address, store)
    del environment["PREFECT_API_URL"]  # the server is the API
    environment["PREFECT_SERVER_UI_API_URL"] = address.api  # else the pages ask port 4200, whatever --port says
    if address.auth:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = address.auth
    arguments = ["prefect", "server", "start", "--host", HOST, "--port", str(address.port)]
    return start_service("server", arguments, environment, log, ROOT)


def wait_for_server(server: Service, address: Address) -> None:
    """Wait until the API answers.

    Raises:
        FarmError: the server ended, or does not answer in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not server.is_alive():
            raise FarmError(f"Prefect's server did not start:\n{server.last_lines()}", f"See {server.log}.")
        try:
            if httpx.get(f"{address.api}/health", timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise FarmError(f"Prefect's server does not answer after {_START_SECONDS:.0f} s.", f"See {server.log}.")


def start_worker(name: str, pool: str, environment: Mapping[str, str], log: Path) -> Service:
    """Start a worker of a pool."""
    arguments = ["prefect", "worker", "start", "--pool", pool, "--name", name, "--type", "process"]
    return start_service(f"worker {name}", arguments, environment, log, ROOT)


def fresh_log_folder(store: Path) -> Path:
    """An empty folder for the output of the services, beside the artifacts."""
    folder = store / "services"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _require_free(port: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            raise UsageError(
                f"Port {port} of {HOST} is taken.",
                "Stop what listens there (another `alpaca-farm up`?), or choose another with --port.",
            ) from None
