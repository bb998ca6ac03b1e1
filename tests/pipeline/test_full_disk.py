"""A disk that fills up in the middle of a stage, on a real file system of its own: said clearly, and gone on from."""

import os
import subprocess

import pytest

from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.artifacts.verify import verify
from alpaca_farm_core.config.presets import build_study
from alpaca_farm_core.errors import StoreError
from alpaca_farm_core.pipeline.runner import LocalRunner
from flows.compositions import composition_named
from tests.tiny import TINY

SETTINGS = {
    **TINY,
    "sft.epochs": 3,
    "execution.min_free_gb": 0,
    "execution.checkpoint_seconds": 0,
    "execution.threads": 1,
}


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting needs more rights than these tests have: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def leave(disk, kilobytes):
    """Fill the disk up to that room."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * (free.f_bavail * free.f_frsize - 1024 * kilobytes))


def sft(root, own_process="when_needed"):
    study = build_study("meadow", {**SETTINGS, "execution.own_process": own_process})
    return composition_named("sft")(LocalRunner(study, "x", Store(root)))["sft"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return sft(tmp_path_factory.mktemp("undisturbed")).manifest.semantic()


@pytest.mark.parametrize(
    ("kilobytes", "there"),
    [(8, []), (40, []), (300, ["dataset/x-dataset@v1"]), (1000, ["dataset/x-dataset@v1"])],
    ids=["first_files", "data", "first_checkpoint", "later"],
)
def test_a_full_disk_is_said_nothing_is_half_there_and_the_same_run_goes_on(disk, undisturbed, kilobytes, there):
    leave(disk, kilobytes)
    with pytest.raises(StoreError, match="is full, or a quota is used up") as caught:
        sft(disk / "store")
    assert "Free some space" in caught.value.next_action
    (disk / "ballast").unlink()
    store = Store(disk / "store")
    found = list(store.artifacts())
    assert [artifact.reference for artifact in found] == there
    assert all(not one.problems for one in verify(store, found, check_lineage=True))
    assert not list(disk.rglob("checkpoints/.*.tmp"))
    assert sft(disk / "store").manifest.semantic() == undisturbed


@pytest.mark.slow
def test_a_process_of_its_own_says_it_too(disk, undisturbed):
    leave(disk, 300)
    with pytest.raises(StoreError, match="is full, or a quota is used up"):
        sft(disk / "store", "always")
    (disk / "ballast").unlink()
    assert sft(disk / "store", "always").manifest.semantic() == undisturbed
