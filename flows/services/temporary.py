"""Prefect's temporary server for a run from the command line; no signal to the whole group or job ends it early.

Ctrl-C goes to every process of the terminal, SIGTERM of a batch system or service manager to every process of the
job. A server that ends before the run has told it its last state leaves the run waiting for answers that never come:
this one ends when its input does, which is when the process that started it ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

from prefect.client.orchestration import get_client
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from flows.services.server import ROOT
from flows.services.serving import HELD_SIGNALS

_STOP_SECONDS = 5.0


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own starter of its temporary server, with another process behind it.

    Prefect keeps one instance per port asked for; one made before Prefect needs it is the one that Prefect uses.
    """

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        told = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)  # what is blocked stays blocked in a child
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.services.serving", str(self.port)],
                env={**os.environ, **told, **settings, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def stop(self) -> None:
        """Let the server finish what it was told, and end."""
        if self.server_process is not None and self.server_process.stdin is not None:
            self.server_process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server_process.wait(_STOP_SECONDS)
            if self.server_process.poll() is None:
                self.server_process.kill()
        super().stop()


def start_temporary_server() -> None:
    """Start the server that Prefect uses where the settings name none; it ends with the process that called."""
    TemporaryServer()
    with get_client(sync_client=True):
        pass
