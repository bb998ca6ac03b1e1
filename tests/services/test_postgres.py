"""The farm on a real PostgreSQL: the full flow, the same from the store, and a server that is killed in between."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.services.farm import free_port, running, wait_for
from tests.tiny import TINY

PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [
    str(Path(found).parent) for found in [shutil.which("initdb")] if found
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PROGRAMS, reason="no PostgreSQL on this machine (apt-get install postgresql)"),
]


def as_database_user(*words):
    """PostgreSQL refuses to run as root: its own user runs it then."""
    command = [str(Path(PROGRAMS[-1], words[0])), *words[1:]]
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


@contextmanager
def postgres():
    """A database of its own on a free port; yields its address for Prefect."""
    folder, port = tempfile.mkdtemp(prefix="farm-pg-"), free_port()  # its socket's path must be short
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    data, options = f"{folder}/data", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
    try:
        subprocess.run(as_database_user("initdb", "-D", data, "-A", "trust", "-U", "farm"), check=True, cwd=folder)
        start = as_database_user("pg_ctl", "-D", data, "-w", "-t", "60", "-l", f"{folder}/log", "-o", options, "start")
        subprocess.run(start, check=True, cwd=folder)
        yield f"postgresql+asyncpg://farm@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(as_database_user("pg_ctl", "-D", data, "-m", "immediate", "stop"), cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_full_flow_on_postgresql_also_when_its_server_is_killed(tmp_path):
    run = {"overrides": TINY, "run_name": "tiny"}
    with postgres() as database:
        settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
        with running(tmp_path / "up", environment=settings) as up:
            first = up.start_run("rlhf/rlhf", **run)
            assert up.wait_for_state(first, "Completed", "Failed", "Crashed")["state"]["name"] == "Completed"
            assert set(up.task_states(first).values()) == {"Completed"}
            assert not list(Path(up.root, "prefect").glob("*.db"))

            (server,) = [p for p in up.processes() if "server" in p.cmdline() and "start" in p.cmdline()]
            server.send_signal(signal.SIGKILL)
            wait_for(lambda: "server died" in up.said(), 30)
            wait_for(up.answers, 120)
            assert up.run(first)["state"]["name"] == "Completed"

            again = up.start_run("rlhf/rlhf", **run)
            up.wait_for_state(again, "Completed", "Failed", "Crashed")
            assert set(up.task_states(again).values()) == {"Cached"}
            assert up.slots_taken() == 0
