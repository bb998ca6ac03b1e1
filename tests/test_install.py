"""A plain installation, used from an unrelated folder: package data is there, tests and docker are not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import TINY

ROOT = Path(__file__).parent.parent
DATA = [
    "alpaca_farm_core/py.typed",
    "alpaca_farm_core/annotators/configs/greedy/configs.yaml",
    "alpaca_farm_core/data/templates/alpaca.json",
    "alpaca_farm_core/evaluation/report/templates/comparison.html.jinja",
    "alpaca_farm_core/evaluation/report/templates/report.css",
    "alpaca_farm_core/evaluation/report/templates/report.html.jinja",
    "alpaca_farm_core/evaluation/templates/leaderboard.html.jinja",
    "alpaca_farm_core/meadow/lexicon.json",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The project as a wheel, unpacked beside this environment's dependencies."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():  # a copy, as building leaves files in the source folder
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    return target


@pytest.fixture
def alpaca_farm(installed, tmp_path):
    def run(*words):
        command = [sys.executable, "-P", str(installed / "bin" / "alpaca-farm"), *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(installed), "ALPACA_FARM_STORE": str(tmp_path / "store")}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_what_is_packaged(installed):
    assert [name for name in DATA if not (installed / name).is_file()] == []
    assert {path.name for path in installed.iterdir()} & {"tests", "docker"} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["presets", "--json"], ["run", "rlhf", "--dry-run", "--json"], ["config", "show", "--json"]]
)
def test_commands_from_another_folder(alpaca_farm, words):
    done = alpaca_farm(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_a_tiny_run_from_another_folder(alpaca_farm, installed, tmp_path):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    done = alpaca_farm("run", "rlhf", "--config", "tiny.yaml", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert Path(made["report"]["path"], "report.html").stat().st_size > 10_000
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import flows; print(flows.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
