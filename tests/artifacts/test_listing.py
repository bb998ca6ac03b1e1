"""The list of a store: what the manifests say, read once, never trusted over them; and stores with many artifacts."""

import json

import pytest

from alpaca_farm_core.artifacts.gc import plan_removal
from alpaca_farm_core.artifacts.lineage import lineage
from alpaca_farm_core.artifacts.listing import FILE, artifacts_of_stage, summaries
from alpaca_farm_core.artifacts.manifest import Artifact, Manifest, Recipe
from alpaca_farm_core.artifacts.store import Store


def put(store, name, number, kind="dataset", inputs=()):
    """Publish an artifact of one small file."""
    recipe = Recipe("toy", 1, {"number": number}, {f"role_{i}": source for i, source in enumerate(inputs)})
    folder = store.workspace(recipe.fingerprint) / "output"
    folder.mkdir(parents=True)
    contents = dict.fromkeys(recipe.inputs, "")
    volatile = {"created": f"2026-01-01T00:00:{number:02d}", "seconds": 1.5, "finished_at": float(number)}
    artifact = store.publish(folder, Manifest(kind, recipe, (), {}, contents, 0, volatile), name)
    store.workspace(recipe.fingerprint).rmdir()
    return artifact


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def reads(monkeypatch):
    """Folders whose manifests are read."""
    found, read = [], Artifact.read.__func__
    monkeypatch.setattr(Artifact, "read", classmethod(lambda cls, path: found.append(path.name) or read(cls, path)))
    return found


def test_a_summary_is_what_the_manifest_says(store):
    artifact = put(store, "a", 3)
    ((folder, summary),) = summaries(store)
    assert folder == str(artifact.path)
    assert vars(summary) == {
        "reference": "dataset/a@v1", "kind": "dataset", "name": "a", "version": 1, "stage": "toy",
        "created": "2026-01-01T00:00:03", "seconds": 1.5, "size_bytes": 0, "fingerprint": artifact.fingerprint,
    }  # fmt: skip


def test_manifests_are_read_once_and_again_when_they_change(store, reads):
    for number in range(3):
        put(store, "a", number)
    first = summaries(store)
    assert reads == ["v1", "v2", "v3"]
    assert summaries(store) == first
    assert len(reads) == 3
    put(store, "b", 9, kind="outputs")
    assert [s.reference for _, s in summaries(store)] == [f"dataset/a@v{n}" for n in (1, 2, 3)] + ["outputs/b@v1"]
    assert reads[3:] == ["v1"]
    manifest = store.root / "artifacts/dataset/a/v2/manifest.json"
    manifest.write_text(manifest.read_text().replace("00:00:01", "00:00:59"))
    assert summaries(store, "dataset")[1][1].created == "2026-01-01T00:00:59"
    assert reads[4:] == ["v2"]


_OF_THE_FIRST_VERSION = '{"schema_version": 1, "artifacts": {"/store/artifacts/dataset/a/v1": [[1, 2, 3], {}]}}'


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 99, "artifacts": {}}', _OF_THE_FIRST_VERSION])
def test_a_damaged_list_is_made_anew(store, content):
    put(store, "a", 0)
    expected = summaries(store)
    (store.root / FILE).write_text(content)
    assert summaries(store) == expected
    assert json.loads((store.root / FILE).read_text())["schema_version"] == 2


def test_what_is_gone_or_damaged_is_not_listed(store):
    for number in range(3):
        put(store, "a", number)
    summaries(store)
    store.discard(store.root / "artifacts/dataset/a/v1")
    (store.root / "artifacts/dataset/a/v3/manifest.json").write_text("{}")
    problems = []
    assert [s.version for _, s in summaries(store, on_damage=problems.append)] == [2]
    assert len(problems) == 1


def test_versions_come_in_the_order_of_their_numbers(store):
    for number in range(11):
        put(store, "a", number)
    assert [artifact.version for artifact in store.artifacts()] == list(range(1, 12))


def test_artifacts_of_a_stage(store):
    put(store, "a", 0)
    assert [artifact.reference for artifact in artifacts_of_stage(store, "toy")] == ["dataset/a@v1"]
    assert list(artifacts_of_stage(store, "sft")) == []


def test_a_lineage_of_diamonds_looks_each_source_up_once(store, monkeypatch):
    """Twenty generations, each made of the one before twice over: a million paths, twenty-one artifacts."""
    artifact = put(store, "g0", 0)
    for generation in range(1, 21):
        artifact = put(store, f"g{generation}", generation, inputs=(artifact.fingerprint, artifact.fingerprint))
    looked, find = [], Store.find
    monkeypatch.setattr(Store, "find", lambda self, *args, **kw: looked.append(args[0]) or find(self, *args, **kw))
    assert lineage(store, artifact.fingerprint).inputs["role_1"].artifact.name == "g19"
    assert len(looked) == 21
    assert plan_removal(store) == []
    assert len(looked) == 21 + 20  # the youngest is kept for itself, the others as sources
