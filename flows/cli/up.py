"""`alpaca-farm up`: Prefect's server and UI, pools, limits, deployments and workers with one command, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from flows.cli.options import store_option

_LOOK_SECONDS = 0.5


@click.command()
@store_option
@click.option("--port", default=4200, show_default=True, help="Port of the UI and the API on 127.0.0.1.")
@click.option(
    "--auth",
    metavar="USER:PASSWORD",
    envvar="PREFECT_SERVER_API_AUTH_STRING",
    help="Ask for a password. The variable PREFECT_SERVER_API_AUTH_STRING keeps it out of the list of processes.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Workers of each pool.")
@click.option("--trainings", default=1, show_default=True, type=click.IntRange(1), help="Stages that train at once.")
def up(store: str | None, port: int, auth: str | None, workers: int, trainings: int) -> None:
    """Start the UI, the deployments and workers on this machine; Ctrl-C stops them all."""
    from rich.console import Console

    from alpaca_farm_core.artifacts.store import Store
    from alpaca_farm_core.errors import UsageError
    from flows.services.quiet import QUIET
    from flows.services.server import Address

    if auth is not None and not all(auth.partition(":")):
        raise UsageError("--auth needs a user and a password.", "Write it as user:password.")
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    from flows.services.farm import Farm

    console = Console(highlight=False, soft_wrap=True)
    farm = Farm(Store(store), Address(port, auth or ""), workers, trainings, console.print)
    with _signals_interrupt():
        try:
            with console.status("Starting Prefect …"):
                farm.start()
            _say_where(farm.address.ui, farm.address.api, farm.store.location, console.print)
            while True:
                time.sleep(_LOOK_SECONDS)
                farm.watch()
        except KeyboardInterrupt:
            console.print("Stopping …")
        finally:
            with _deaf():
                farm.stop()
    console.print("Stopped. A run that was cut off can be retried in the UI after the next `alpaca-farm up`.")


def _say_where(ui: str, api: str, store: str, say: Callable[[str], None]) -> None:
    say(f"[bold]Prefect UI[/]   [link={ui}]{ui}[/link]   (deployment [bold]rlhf[/], then Run)")
    say(f"Store        {store}")
    say(f"Logs         {store}/services")
    say(f"To see runs of your own terminals there too: export PREFECT_API_URL={api}")
    say("Ctrl-C stops everything.")


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this command as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handled({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def _deaf() -> Iterator[None]:
    """Stop in peace: a second Ctrl-C would leave processes behind."""
    with _handled(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
