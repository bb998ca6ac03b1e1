"""The contract that methods keep to: for each that is built in, and for one installed from another package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.data.rows import read_outputs
from alpaca_farm_core.errors import ConfigError, UsageError
from alpaca_farm_core.methods.registry import BUILT_IN, method_named, methods
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import learn, shared
from flows.contract import check_declaration, check_run
from tests.tiny import TINY

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "example_plugin"
SETTINGS = {**TINY, "execution.threads": 1, "execution.checkpoint_seconds": 0, "execution.decode_batch_size": 8}


def open_as_a_user(artifact):
    if artifact.kind == "outputs":
        assert read_outputs(artifact.path / "outputs.jsonl")
        return
    model = AutoModelForCausalLM.from_pretrained(artifact.path)
    tokenizer = AutoTokenizer.from_pretrained(artifact.path)
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id


@pytest.mark.parametrize("method", BUILT_IN, ids=lambda method: method.name)
def test_declarations(method):
    check_declaration(method)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores with equal shared artifacts."""
    roots = [tmp_path_factory.mktemp("contract") / name for name in ("store", "killed")]
    for root in roots:
        shared(LocalRunner(build_study("meadow", SETTINGS), "contract", Store(root)), "reward_model")
    return [Store(root) for root in roots]


@pytest.mark.parametrize("method", BUILT_IN, ids=lambda method: method.name)
def test_runs(method, stores):
    check_run(method, build_study("meadow", SETTINGS), *stores, open_as_a_user)


LORA = ("ppo", "dpo", "rloo", "grpo", "quark", "feedme", "expert-iteration")


@pytest.mark.parametrize("name", [*LORA[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in LORA[2:])])
def test_runs_with_adapters(name, stores):
    method = method_named(name)
    study = build_study("meadow", {**SETTINGS, f"{method.stages[-1].name}.lora.rank": 2})
    check_run(method, study, *stores, open_as_a_user)


def test_a_second_round_of_expert_iteration_starts_from_the_first(stores):
    studies = [build_study("meadow", {**SETTINGS, "expert_iteration.rounds": rounds}) for rounds in (1, 2)]
    method = method_named("expert-iteration")
    one, two = (learn(LocalRunner(study, "contract", stores[0]), method) for study in studies)
    sampled = two["expert_samples_2"].manifest.recipe.inputs["policy"]
    assert sampled == one["expert-iteration"].fingerprint == two["expert_iteration_1"].fingerprint
    assert two["expert-iteration"].manifest.recipe.inputs["policy"] == sampled
    assert two["expert-iteration"].metrics["round"] == 2


# --- another package's


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example package, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    copy = tmp_path_factory.mktemp("source") / "plugin"  # building leaves files in the source folder
    subprocess.run(["cp", "-r", str(EXAMPLE), str(copy)], check=True)
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(copy)], check=True)
    return target


def python(installed, code, *words):
    paths = os.pathsep.join([str(installed), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


RUN = """
import sys
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.methods.registry import method_named
from flows.contract import check_declaration, check_run
from tests.methods.test_contract import SETTINGS, open_as_a_user
method = method_named("slic")
check_declaration(method)
own = {key: value for key, value in SETTINGS.items() if not key.startswith("dataset.")}
sizes = {"dataset.sizes.sft": 64, "dataset.sizes.preference": 64, "dataset.sizes.unlabeled": 64,
         "dataset.sizes.val": 16, "dataset.sizes.eval": 16, "sft.epochs": 3}
study = build_study("meadow", {**own, **sizes, "dataset.source": "echoes", "slic.batch_size": 16}, annotator="shorter")
check_run(method, study, Store(sys.argv[1]), Store(sys.argv[2]), open_as_a_user)
artifact = Store(sys.argv[1]).get("policy/contract-slic@v1")
preferences = Store(sys.argv[1]).get("preferences/contract-preferences@v1")
print(artifact.metrics["n_pairs"], preferences.metrics["n_total"], preferences.manifest.recipe.external["annotator"])
"""


def test_a_method_an_annotator_and_a_data_source_of_another_package(installed, tmp_path):
    n_pairs, n_total, digest = python(installed, RUN, tmp_path / "one", tmp_path / "two").split()[-3:]
    assert 0 < int(n_pairs) <= int(n_total) == 64
    assert len(digest) == 64


def test_the_command_line_knows_it(installed):
    code = "from flows.cli.main import main; main(['config', 'show', '--set', 'slic.margin=2', '--json'])"
    assert '"slic.margin": 2.0' in python(installed, code)
    code = "from flows.cli.main import main; main(['run', 'slic', '--dry-run', '--json'])"
    assert '"stage": "slic"' in python(installed, code)


@pytest.mark.parametrize("name", ["stage.py", "train.py"])
def test_the_readme_shows_the_example_as_it_is(name):
    assert (EXAMPLE / "slic" / name).read_text().strip() in (ROOT / "README.md").read_text()


def test_the_example_is_short():
    lines = sum(len(path.read_text().splitlines()) for path in (EXAMPLE / "slic").glob("*.py") if path.stem != "extras")
    assert lines < 140


def test_without_it_nobody_knows_it():
    assert "slic" not in methods()
    with pytest.raises(UsageError, match="There is no method 'slic'"):
        method_named("slic")
    with pytest.raises(ConfigError, match="neither 'meadow'"):
        build_study("meadow", {"dataset.source": "echoes"})
