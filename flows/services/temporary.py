"""Prefect's temporary server for a run from the command line, out of reach of the terminal's Ctrl-C.

Ctrl-C goes to every process of the terminal. A server that ends before the run has told it its last state leaves
the run waiting for answers that never come.
"""

from __future__ import annotations

import signal

from prefect.client.orchestration import get_client


def start_server() -> None:
    """Start the temporary server where the settings name none; the process that called ends it when it exits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is blocked stays blocked in a child
    try:
        with get_client(sync_client=True):
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
