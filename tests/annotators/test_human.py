"""Labels of people as a preferences artifact: from files by fields, and from a mirror of the hub."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alpaca_farm_core.annotators.config import HumanPreferencesConfig
from alpaca_farm_core.annotators.human import STAGE_HUMAN
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.errors import DataError, MissingAnnotationsError
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import rlhf
from tests.data.hub_server import serve
from tests.tiny import TINY

ALPACA_FARM = {
    "instruction": "Say.",
    "input": "",
    "output_1": "a",
    "output_2": "b",
    "preference": 2,
    "raw_preference": 3,
}
LLMBAR = {"input": "Say it.", "output_1": "a", "output_2": "b", "label": 1}


def run(store, **settings):
    return run_stage(STAGE_HUMAN, HumanPreferencesConfig(seed=0, **settings), {}, store=store, name="people").artifact


def write(path, rows):
    path.write_text(json.dumps(rows))
    return str(path)


def test_fields_decide_how_a_row_is_read(store, tmp_path):
    rows = [ALPACA_FARM, LLMBAR, {**ALPACA_FARM, "preference": 0, "annotator": 17}, {**ALPACA_FARM, "preference": 1.25}]
    artifact = run(store, source=write(tmp_path / "any.json", rows))
    read = read_preferences(artifact.path / "preferences.jsonl")
    assert [(row.instruction, row.input, row.preference, row.annotator) for row in read] == [
        ("Say.", "", 2.0, "human"), ("Say it.", "", 1.0, "human"), ("Say.", "", 1.5, "17"), ("Say.", "", 1.25, "human"),
    ]  # fmt: skip
    assert artifact.manifest.kind == "preferences"
    counts = {"n_total": 4, "n_ties": 1, "n_prefer_1": 2, "n_prefer_2": 1, "n_annotators": 2}
    assert {key: artifact.metrics[key] for key in counts} == counts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"preference": 3}, "preference 3 is no label"),
        ({"preference": True}, "preference True is no label"),
        ({"preference": "1"}, "preference '1' is no label"),
        ({"output_2": None}, "'output_2' is None"),
        ({"output_1": "\ud800"}, "'output_1' is not valid Unicode"),
    ],
)
def test_a_bad_row_is_named(store, tmp_path, change, words):
    with pytest.raises(DataError, match=f"row 2: {words}"):
        run(store, source=write(tmp_path / "f.json", [ALPACA_FARM, ALPACA_FARM | change]))


def test_files_without_labels_are_refused(store, tmp_path):
    unlabelled = {key: value for key, value in ALPACA_FARM.items() if "preference" not in key}
    with pytest.raises(DataError, match="no 'preference' or 'label'"):
        run(store, source=write(tmp_path / "f.json", [unlabelled]))
    rows = [ALPACA_FARM | {"preference": None}, ALPACA_FARM]
    with pytest.raises(MissingAnnotationsError, match="1 of 2 rows have no label"):
        run(store, source=write(tmp_path / "g.json", rows))
    artifact = run(store, source=str(tmp_path / "g.json"), max_missing=0.5)
    assert artifact.manifest.n_missing == 1
    with pytest.raises(DataError, match="holds no rows"):
        run(store, source=write(tmp_path / "h.json", []))
    with pytest.raises(DataError, match="There is no data file"):
        run(store, source=str(tmp_path / "none.json"))
    with pytest.raises(DataError, match="source is empty"):
        run(store)


def test_a_subset_is_seeded_and_in_order(store, tmp_path):
    source = write(tmp_path / "f.json", [ALPACA_FARM | {"instruction": f"{k:03}"} for k in range(50)])
    read = read_preferences(run(store, source=source, max_rows=10).path / "preferences.jsonl")
    names = [row.instruction for row in read]
    assert len(names) == 10
    assert names == sorted(names)
    assert names != [f"{k:03}" for k in range(10)]


SCRIPT = """
import json, sys
from pathlib import Path
from alpaca_farm_core.annotators.config import HumanPreferencesConfig
from alpaca_farm_core.annotators.human import STAGE_HUMAN
from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.errors import FarmError
from alpaca_farm_core.pipeline.stage import StageContext
for number, values in enumerate(json.load(sys.stdin)):
    out = Path(sys.argv[1]) / str(number)
    try:
        config = HumanPreferencesConfig(seed=0, **values)
        STAGE_HUMAN.external(config)
        STAGE_HUMAN.run(StageContext(config, {}, out, out / "scratch", out / "calls"))
        print(json.dumps([row["preference"] for row in read_jsonl(out / "preferences.jsonl")]))
    except FarmError as error:
        print(error.headline, error.next_action)
"""


def parquet(rows):
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def test_the_hubs_sets_are_read_from_a_mirror(tmp_path):
    """HF_ENDPOINT is read when huggingface_hub is imported, so all of it runs in one other process."""
    files = {f"alpaca_{name}_preference.json": json.dumps([ALPACA_FARM | {"preference": label}, LLMBAR]).encode()
             for name, label in (("human", 2), ("noisy_multi", 1), ("gpt4", 1.5))}  # fmt: skip
    repositories = {
        "tatsu-lab/alpaca_farm": {"main": {"alpaca_farm.py": b"", "alpaca_farm_evaluation.json": b"[]", **files}},
        "some/script": {
            "main": {"script.py": b""},
            "refs/convert/parquet": {"votes/train/0000.parquet": parquet([ALPACA_FARM] * 3)},
        },
    }
    asked = [
        {"source": "tatsu-lab/alpaca_farm"},
        {"source": "tatsu-lab/alpaca_farm", "part": "alpaca_noisy_multi_preference"},
        {"source": "tatsu-lab/alpaca_farm", "part": "alpaca_gpt4_preference"},
        {"source": "some/script", "part": "votes"},
        {"source": "tatsu-lab/alpaca_farm", "part": "alpaca_humane_preference"},
    ]
    with serve(repositories) as (endpoint, _):
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "out")], input=json.dumps(asked), env=environment,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    *labels, error = done.stdout.strip().split("\n")
    assert list(map(json.loads, labels)) == [[2.0, 1.0], [1.0, 1.0], [1.5, 1.0], [2.0, 2.0, 2.0]]
    assert "has no part 'alpaca_humane_preference'. Did you mean 'alpaca_human_preference'?" in error


def test_every_flow_runs_in_a_human_arm(store, tmp_path):
    rows = [
        {"instruction": f"Name {k}.", "output_1": "red", "output_2": "green and blue", "preference": 1 + k % 2}
        for k in range(24)
    ]
    source = write(tmp_path / "people.json", rows)
    made = rlhf(LocalRunner(build_study("meadow", {**TINY, "human_preferences.source": source}), "arm", store))
    assert "samples" not in made
    assert made["preferences"].manifest.recipe.stage == "human_preferences"
    assert made["reward_model"].manifest.recipe.inputs["preferences"] == made["preferences"].fingerprint
    assert (made["report"].path / "report.html").exists()
