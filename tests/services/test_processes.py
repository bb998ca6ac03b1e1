"""Services that never outlive this process: stopped, killed, or orphaned."""

import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from flows.services.processes import start_service, stop
from tests.services.farm import wait_for

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; {ignore}time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def module(folder, name, source):
    (folder / f"{name}.py").write_text(textwrap.dedent(source))
    return {**os.environ, "PYTHONPATH": str(folder)}


def grandchild(service):
    wait_for(lambda: service.last_lines().strip().isdigit(), 60)
    return psutil.Process(int(service.last_lines()))


@pytest.mark.parametrize("ignore", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); "], ids=["polite", "deaf"])
def test_what_a_service_started_ends_with_it(tmp_path, ignore):
    environment = module(tmp_path, "parent", PARENT.replace("{ignore}", ignore))
    service = start_service("parent", ["parent"], environment, tmp_path / "log", tmp_path)
    below = grandchild(service)
    stop([service], 2)
    assert service.process.returncode == -signal.SIGTERM
    assert not below.is_running()


def test_a_service_ends_when_its_starter_is_killed(tmp_path):
    environment = module(tmp_path, "parent", PARENT.replace("{ignore}", ""))
    starter = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(f"""
            import os, time
            from pathlib import Path
            from flows.services.processes import start_service
            folder = Path({str(tmp_path)!r})
            service = start_service("parent", ["parent"], dict(os.environ), folder / "log", folder)
            print(service.process.pid, flush=True)
            time.sleep(600)
        """)],
        env={**environment, "PYTHONPATH": f"{os.getcwd()}{os.pathsep}{tmp_path}"}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    service = psutil.Process(int(starter.stdout.readline()))
    starter.kill()
    starter.communicate()
    assert psutil.wait_procs([service], timeout=30)[1] == []


ADOPTED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from alpaca_farm_core.training.children import adopt_orphans
from flows.services.processes import end, orphans, reap_orphans, start_service
adopt_orphans()
folder = Path(sys.argv[1])
service = start_service("parent", ["parent"], dict(os.environ), folder / "log", folder)
while not service.last_lines().strip().isdigit():
    time.sleep(0.1)
service.process.kill()
while not orphans([service]):
    time.sleep(0.1)
reap_orphans([service])
assert service.process.wait() == -9
if sys.argv[2] == "by itself":
    orphans([service])[0].kill()
    while orphans([service]):
        reap_orphans([service])
        time.sleep(0.1)
    sys.exit()
left = orphans([service])
assert [process.pid for process in left] == [int(service.last_lines())], left
end(left, 5)
assert not left[0].is_running()
"""


@pytest.mark.parametrize("how", ["by us", "by itself"])
def test_what_a_killed_service_leaves_is_adopted_and_ended(tmp_path, how):
    environment = module(tmp_path, "parent", PARENT.replace("{ignore}", ""))
    path = f"{os.getcwd()}{os.pathsep}{tmp_path}"
    done = subprocess.run(
        [sys.executable, "-c", ADOPTED, tmp_path, how],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
