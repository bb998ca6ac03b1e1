"""`alpaca-farm up` for tests: a process of its own, asked through Prefect's API, stopped like a user does."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil

START_SECONDS = 180


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Up:
    """A running `alpaca-farm up`.

    Everything is asked over HTTP, as the UI does; `process` is the command, `root` its folder.
    """

    def __init__(self, root, *options, auth=None, environment=None):
        self.root, self.port, self.auth = Path(root), free_port(), auth
        self.output = self.root / "up.log"
        more = ["--auth", auth] if auth else []
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # these tests run in a shell's background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli.main", "up", "--port", str(self.port), *options, *more],
                env={
                    **inherited,
                    "PYTHONPATH": os.getcwd(),
                    "PREFECT_HOME": str(self.root / "prefect"),
                    "ALPACA_FARM_STORE": str(self.root / "store"),
                    **(environment or {}),
                },
                cwd=self.root,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api", auth=tuple(auth.split(":")) if auth else None, timeout=30
        )

    def said(self):
        return self.output.read_text()

    def wait_until_ready(self):
        wait_for(lambda: "Ctrl-C stops everything" in self.said() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.said()

    def answers(self):
        """Whether the API answers; it does not while its server is being started again."""
        try:
            return self.http.get("/health").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def copy_database(self, root):
        """Give another one in `root` this one's database, which spares it the half minute that a new one takes."""
        (root / "prefect").mkdir(parents=True)
        files = (self.root / "prefect/prefect.db", root / "prefect/prefect.db")
        with closing(sqlite3.connect(files[0])) as source, closing(sqlite3.connect(files[1])) as target:
            source.backup(target)

    def processes(self):
        """Everything below it that runs."""
        return [p for p in psutil.Process(self.process.pid).children(recursive=True) if _runs(p)]

    def stop(self, number=signal.SIGINT):
        """End it like Ctrl-C; return what was below it before."""
        below = self.processes() if self.process.poll() is None else []
        self.process.send_signal(number)
        self.process.wait(60)
        return below

    # --- Prefect's API

    def get(self, path):
        return self.send("GET", path)

    def post(self, path, **body):
        return self.send("POST", path, body)

    def send(self, method, path, body=None):
        """Ask as Prefect's own clients do: 503 is what the server says while SQLite is locked, and means "again"."""
        deadline = time.monotonic() + 60
        while (answer := self.http.request(method, path, json=body)).status_code == httpx.codes.SERVICE_UNAVAILABLE:
            assert time.monotonic() < deadline, f"{method} {path}: {answer.text}"
            time.sleep(0.5)
        return answer.raise_for_status().json() if answer.content else None

    def start_run(self, deployment, **parameters):
        """Start a run of `flow/deployment`; return its id."""
        found = self.get(f"/deployments/name/{deployment}")
        return self.post(f"/deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]

    def run(self, run_id):
        return self.get(f"/flow_runs/{run_id}")

    def wait_for_state(self, run_id, *names, seconds=240):
        """Wait for a state; return the run."""
        wait_for(lambda: self.run(run_id)["state"]["name"] in names, seconds, lambda: self.run(run_id)["state"])
        return self.run(run_id)

    def task_states(self, run_id):
        """Title → state name of a run's newest task runs."""
        tasks = self.post(
            "/task_runs/filter", flow_runs={"id": {"any_": [run_id]}}, sort="EXPECTED_START_TIME_ASC", limit=200
        )
        return {task["name"]: task["state_name"] for task in tasks}

    def retry(self, run_id):
        """What the UI's Retry does."""
        return self.post(f"/flow_runs/{run_id}/set_state", state={"type": "SCHEDULED", "name": "AwaitingRetry"})

    def cancel(self, run_id):
        """What the UI's Cancel does."""
        return self.post(f"/flow_runs/{run_id}/set_state", state={"type": "CANCELLING", "name": "Cancelling"})

    def slots_taken(self, limit="training"):
        return self.get(f"/v2/concurrency_limits/{limit}")["active_slots"]

    def flow_processes(self, run_id):
        """Processes that work on a flow run: those with its id in their environment, and all below them."""
        mine = [process for process in self.processes() if _works_on(process, run_id)]
        return list({child for process in mine for child in [process, *process.children(recursive=True)]})


def _runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _works_on(process, run_id):
    try:
        return process.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == run_id.replace("-", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def wait_for(condition, seconds, what=lambda: ""):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.25)
    return found


@contextmanager
def running(root, *options, **more):
    """A ready `alpaca-farm up`; nothing of it is left behind, whatever the test does."""
    root.mkdir(parents=True, exist_ok=True)
    up = Up(root, *options, **more)
    below = []
    try:
        up.wait_until_ready()
        yield up
        below = up.processes() if up.process.poll() is None else []
    finally:
        up.http.close()
        if up.process.poll() is None:
            up.stop()
        up.http.close()
        for process in psutil.wait_procs(below, timeout=10)[1]:
            process.kill()
