import json
import os
import time

import pytest

from alpaca_farm_core.artifacts.gc import plan_removal, remove
from alpaca_farm_core.artifacts.lineage import lineage, why
from alpaca_farm_core.artifacts.store import Store, default_location
from alpaca_farm_core.artifacts.transfer import export, import_folder
from alpaca_farm_core.artifacts.verify import verify
from alpaca_farm_core.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError, UsageError
from alpaca_farm_core.pipeline.run import make_recipe, run_stage
from tests.pipeline import toy


def make(store, factor=2.0, **numbers):
    data = run_stage(toy.NUMBERS, toy.NumbersConfig(**numbers), {}, store=store, name="numbers").artifact
    config = toy.ScaleConfig(factor=factor)
    return run_stage(toy.SCALE, config, {"numbers": data}, store=store, name="scaled").artifact


def test_default_location(monkeypatch, tmp_path):
    monkeypatch.setenv("ALPACA_FARM_STORE", str(tmp_path / "named"))
    assert default_location() == tmp_path / "named"
    monkeypatch.delenv("ALPACA_FARM_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_location() == tmp_path / "alpaca-farm"


def test_references(store):
    first, second = make(store), make(store, factor=3.0)
    store.tag(first, "baseline")
    assert store.get("scaled").version == 2
    assert store.get("outputs/scaled@v1").path == first.path
    assert store.get("scaled@baseline").path == first.path
    assert store.get(second.fingerprint[:10]).path == second.path
    for missing in ("nothing", "scaled@v9", "scaled@best", "0" * 12, "../etc"):
        with pytest.raises(ArtifactNotFoundError):
            store.get(missing)
    with pytest.raises(UsageError, match="reserved"):
        store.tag(first, "latest")


def test_ambiguous_name_asks_for_the_kind(store):
    data = run_stage(toy.NUMBERS, toy.NumbersConfig(), {}, store=store, name="same").artifact
    run_stage(toy.SCALE, toy.ScaleConfig(), {"numbers": data}, store=store, name="same")
    with pytest.raises(ArtifactNotFoundError, match="exists as dataset, outputs"):
        store.get("same")


def test_the_next_version_is_found_without_a_listing(store, monkeypatch):
    make(store, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("alpaca_farm_core.artifacts.store.versions_in", lambda folder: pytest.fail("listed"))
        second = make(store, 2.0)
    assert second.version == 2


@pytest.mark.parametrize("text", ["", "x", "1", "1 2", "7 8 9"])
def test_a_note_of_the_newest_version_that_does_not_fit_changes_nothing(store, text):
    first, second = make(store, 1.0), make(store, 2.0)
    (note,) = store.root.glob(f"locks/newest-{first.kind}-{first.name}")
    note.write_text(text)
    assert make(store, 3.0).version == second.version + 1


def test_versions_that_others_bring_or_take_are_seen(store):
    made = make(store, 1.0)
    (made.path.parent / "v7").mkdir()
    newest = make(store, 2.0)
    assert newest.version == 8
    store.discard(newest.path)
    assert make(store, 3.0).version == 8  # as ever: one more than the newest that is there


def test_lineage_and_why(store):
    old = make(store)
    new = make(store, seed=7)
    tree = lineage(store, new.fingerprint)
    assert tree.inputs["numbers"].artifact.name == "numbers"
    reason = why(store, new.manifest.recipe, exclude=new.reference)
    assert reason.nearest.reference == old.reference
    assert [(d.name, d.old, d.new) for d in reason.differences] == [("numbers.seed", 0, 7)]


def test_why_of_a_planned_recipe_names_key_and_both_values(store):
    made = make(store)
    recipe = make_recipe(toy.SCALE, toy.ScaleConfig(factor=5.0), dict(made.manifest.recipe.inputs))
    assert str(why(store, recipe)) == "scale.factor: 2.0 → 5.0 (against outputs/scaled@v1)"


def test_why_follows_inputs_that_are_only_planned(store):
    make(store)
    numbers = make_recipe(toy.NUMBERS, toy.NumbersConfig(n=9), {})
    scale = make_recipe(toy.SCALE, toy.ScaleConfig(), {"numbers": numbers.fingerprint})
    reason = why(store, scale, planned={numbers.fingerprint: numbers})
    assert [(d.name, d.old, d.new) for d in reason.differences] == [("numbers.n", 3, 9)]


def test_verify_finds_changed_bytes_of_equal_size(store):
    artifact = make(store)
    victim = artifact.path / "scaled" / "numbers.json"
    text = victim.read_text()
    victim.write_text(text.replace("0", "1", 1))
    (finding,) = verify(store, [artifact])
    assert "scaled/numbers.json" in finding.problems[0]


def test_verify_lineage_reports_a_missing_and_a_changed_input(store):
    artifact = make(store)
    assert verify(store, [artifact], check_lineage=True)[0].problems == ()
    source = store.get("numbers")
    (source.path / "numbers.json").unlink()
    assert "is gone" in verify(store, [artifact], check_lineage=True)[0].problems[0]


def test_gc_keeps_aliases_latest_and_ancestors(store):
    first = make(store, seed=1)
    make(store, seed=2)
    make(store, seed=3)
    store.tag(first, "baseline")
    (store.root / "workspaces" / "abandoned" / "output").mkdir(parents=True)
    planned = plan_removal(store)
    assert sorted(r.what for r in planned) == ["dataset/numbers@v2", "outputs/scaled@v2", "workspace abandoned"]
    assert len(list(store.artifacts())) == 6
    assert remove(store, planned) > 0
    assert sorted(a.reference for a in store.artifacts()) == [
        "dataset/numbers@v1",
        "dataset/numbers@v3",
        "outputs/scaled@v1",
        "outputs/scaled@v3",
    ]
    assert make(store, seed=2).version == 4  # gone means a miss, and version numbers are not reused


def aged(artifact, days):
    """Rewrite when an artifact was made."""
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    manifest["volatile"]["finished_at"] = time.time() - days * 86400
    (artifact.path / "manifest.json").write_text(json.dumps(manifest))


def test_gc_by_age_and_size_takes_the_oldest_and_never_what_is_kept(store):
    scaled = [make(store, seed=seed) for seed in (1, 2, 3)]
    for version, days in ((1, 50), (2, 20), (3, 70)):
        aged(store.get(f"dataset/numbers@v{version}"), days)
        aged(scaled[version - 1], days - 1)
    oldest_first = ["dataset/numbers@v1", "outputs/scaled@v1", "dataset/numbers@v2", "outputs/scaled@v2"]
    assert [r.what for r in plan_removal(store)] == oldest_first
    assert [r.what for r in plan_removal(store, older_than_days=30)] == oldest_first[:2]
    assert [r.what for r in plan_removal(store, older_than_days=60)] == []

    size = sum(entry.size for artifact in store.artifacts() for entry in artifact.manifest.files)
    first = sum(entry.size for entry in store.get("dataset/numbers@v1").manifest.files)
    assert plan_removal(store, max_gb=size / 1e9) == []
    assert [r.what for r in plan_removal(store, max_gb=(size - 1) / 1e9)] == oldest_first[:1]
    assert [r.what for r in plan_removal(store, max_gb=(size - first - 1) / 1e9)] == oldest_first[:2]
    assert [r.what for r in plan_removal(store, max_gb=0)] == oldest_first
    assert [r.what for r in plan_removal(store, older_than_days=30, max_gb=0)] == oldest_first[:2]


def test_gc_leaves_a_busy_workspace(store):
    (store.root / "workspaces" / "busy").mkdir(parents=True)
    with store.lock("busy"):
        assert plan_removal(store) == []


def test_export_and_import(store, tmp_path):
    artifact = make(store)
    folder = export(store, artifact, tmp_path / "out")
    card = (folder / "README.md").read_text()
    assert artifact.fingerprint in card
    assert "numbers: dataset/numbers@v1" in card
    other = Store(tmp_path / "other")
    imported = import_folder(other, folder, "brought")
    assert imported.reference == "outputs/brought@v1"
    assert imported.manifest.content == artifact.manifest.content
    assert import_folder(other, folder, "brought").version == 1
    with pytest.raises(UsageError, match="already exists"):
        export(store, artifact, folder)
    (folder / "scaled" / "numbers.json").write_text("[]")
    with pytest.raises(ArtifactDamagedError):
        import_folder(Store(tmp_path / "third"), folder, "brought")


def test_newer_store_and_newer_artifact_are_refused(store):
    artifact = make(store)
    manifest = artifact.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema_version": 99}))
    with pytest.raises(StoreError, match="newer version"):
        store.find(artifact.fingerprint)
    (store.root / "store.json").write_text('{"schema_version": 99}')
    with pytest.raises(StoreError, match="newer version"):
        Store(store.root)


def test_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a folder"):
        Store(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes read-only folders too")
def test_read_only_store(tmp_path):
    (tmp_path / "store").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "store")
