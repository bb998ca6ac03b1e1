"""A store for many machines: in memory (quick), and against an S3 server over HTTP (slow), with disks of their own."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.artifacts import lease as leases
from alpaca_farm_core.artifacts.bucket import Bucket
from alpaca_farm_core.artifacts.gc import plan_removal, remove
from alpaca_farm_core.artifacts.lineage import lineage
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.artifacts.verify import verify
from alpaca_farm_core.errors import ArtifactDamagedError, ArtifactNotFoundError, StoreError
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageResult
from tests.artifacts.s3_server import s3_server
from tests.artifacts.shared_worker import LARGE, NoConfig
from tests.pipeline import toy


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed (extra: slow)")
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request, monkeypatch):
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/farm"
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    return f"s3://studies/{uuid.uuid4().hex}"


@pytest.fixture
def machine(url, tmp_path, monkeypatch):
    """Open the store as a machine of that name, with its own disk."""

    def opened(name):
        monkeypatch.setenv("ALPACA_FARM_CACHE", str(tmp_path / name))
        return Store(url)

    return opened


def numbers(store, **config):
    return run_stage(toy.NUMBERS, toy.NumbersConfig(**config), {}, store=store, name="numbers")


def test_what_one_machine_made_another_finds(machine):
    made = numbers(machine("a"))
    other = machine("b")
    found = numbers(other)
    assert (made.cached, found.cached) == (False, True)
    assert found.artifact.path != made.artifact.path
    assert found.artifact.path.is_relative_to(other.root)
    assert (found.artifact.path / "numbers.json").read_bytes() == (made.artifact.path / "numbers.json").read_bytes()
    assert found.artifact.manifest.to_json() == made.artifact.manifest.to_json()
    assert Store(other.location).get("numbers@v1").reference == "dataset/numbers@v1"
    assert other.bucket.list("leases") == {}
    assert other.bucket.list("workspaces") == {}


def test_versions_aliases_lineage_and_removal_are_shared(machine):
    a, b = machine("a"), machine("b")
    first = numbers(a, seed=1).artifact
    second = numbers(b, seed=2).artifact
    third = run_stage(
        toy.SCALE, toy.ScaleConfig(), {"numbers": numbers(b, seed=3).artifact}, store=b, name="scaled"
    ).artifact
    assert second.reference == "dataset/numbers@v2"
    b.tag(second, "baseline")
    assert a.get("numbers@baseline").path.is_relative_to(a.root)
    assert lineage(a, third.fingerprint).inputs["numbers"].artifact.reference == "dataset/numbers@v3"
    assert [r.what for r in plan_removal(a)] == ["dataset/numbers@v1"]
    remove(a, plan_removal(a))
    assert b.find(first.fingerprint) is None
    assert sorted(x.reference for x in b.artifacts()) == [
        "dataset/numbers@v2",
        "dataset/numbers@v3",
        "outputs/scaled@v1",
    ]
    assert [f.problems for f in verify(a, list(a.artifacts()), check_lineage=True)] == [(), (), ()]
    assert not a.bucket.list(f"blobs/{first.fingerprint}")


def test_a_damaged_download_is_refused_and_the_artifact_rebuilt(machine):
    made = numbers(machine("a")).artifact
    b = machine("b")
    (blob,) = b.bucket.list("blobs")
    content = b.bucket.read(blob)
    b.bucket.put(blob, content.replace(b"0", b"1", 1))
    said = []
    assert b.find(made.fingerprint, said.append) is None
    assert "numbers.json is not what was stored" in said[0]
    with pytest.raises(ArtifactDamagedError):
        b.get("numbers@v1")
    assert not list(b.root.rglob("*numbers.json*"))
    again = numbers(b)
    assert (again.cached, again.artifact.version) == (False, 2)
    assert numbers(machine("c")).artifact.version == 2
    b.bucket.delete(f"{again.artifact.manifest.volatile['stored']['prefix']}")
    assert machine("d").find(made.fingerprint) is None


def test_a_silent_holder_is_taken_over_and_may_not_publish(machine, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE_SECONDS", 0.6)
    a, b = machine("a"), machine("b")
    monkeypatch.setattr(leases.Lease, "beat", lambda self: None)  # nobody beats: the network is gone
    waited = []
    with a.lock("f" * 64), b.lock("f" * 64, waited.append):
        assert b.is_busy("f" * 64)
        b._held["f" * 64].require()
        with pytest.raises(StoreError, match="took over"):
            a._held["f" * 64].require()
    assert len(waited) == 1
    assert str(os.getpid()) in waited[0]
    assert not a.is_busy("f" * 64)


def test_a_holder_that_beats_is_not_taken_over(url, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE_SECONDS", 1.2)
    bucket, looks = Bucket(url), []

    def enough():
        looks.append(time.monotonic())
        return looks[-1] - looks[0] > 3.0

    with leases.leased(bucket, "x"), leases.leased(bucket, "x", enough=enough) as other:
        assert other is None


def test_a_preempted_machines_checkpoint_is_used_on_another(machine):
    def run(context):
        steps = sorted(p.name for p in (context.scratch / "checkpoints").glob("step_*"))
        folder = context.scratch / "checkpoints" / f"step_{len(steps)}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(f"[{len(steps)}]")
        if len(steps) < 2:
            raise RuntimeError("preempted")
        (context.output / "steps.json").write_text(json.dumps(steps))
        return StageResult(metrics={})

    stage = Stage("long", 1, NoConfig, {}, "dataset", run)
    for name in ("a", "b"):
        with pytest.raises(RuntimeError):
            run_stage(stage, NoConfig(), {}, store=machine(name), name="long")
    done = run_stage(stage, NoConfig(), {}, store=machine("a"), name="long").artifact
    assert json.loads((done.path / "steps.json").read_text()) == ["step_0", "step_1"]
    assert machine("c").bucket.list("workspaces") == {}


def test_an_answer_bought_on_one_machine_is_known_on_the_next(machine):
    seen = []

    def judge(context):
        cache = CallCache(context.calls)
        seen.append(sorted(cache.read([f"call-{n}" for n in range(9)])))
        if context.config.seed == 1:
            cache.commit({"call-8": Answer("b", "stop", {}, "m")})
            raise RuntimeError("stopped in the middle")
        cache.commit({f"call-{context.config.seed}": Answer("a", "stop", {}, "m", price_usd=0.25)})
        cache.close()
        (context.output / "x").write_text("x")
        return StageResult(metrics={})

    stage = Stage("judge", 1, toy.NumbersConfig, {}, "preferences", judge)
    a, b = machine("a"), machine("b")
    run_stage(stage, toy.NumbersConfig(seed=0), {}, store=a, name="j")
    with pytest.raises(RuntimeError):
        run_stage(stage, toy.NumbersConfig(seed=1), {}, store=b, name="j")
    run_stage(stage, toy.NumbersConfig(seed=2), {}, store=a, name="j")
    run_stage(stage, toy.NumbersConfig(seed=3), {}, store=b, name="j")
    assert seen == [[], ["call-0"], ["call-0", "call-8"], ["call-0", "call-2", "call-8"]]
    assert CallCache(b.calls).read(["call-0"])["call-0"].price_usd == 0.25
    sent = [line for key in a.bucket.list("calls") for line in a.bucket.read(key).splitlines()]
    assert len(sent) == 4  # each answer once


def test_a_bucket_that_cannot_be_reached_and_an_unknown_scheme(monkeypatch):
    with pytest.raises(StoreError, match="no place for a store"):
        Store("nonsense://x")
    with pytest.raises(ArtifactNotFoundError):
        Store(f"memory://{uuid.uuid4().hex}").get("nothing")


# Processes with disks of their own ----------------------------------------------------------------


def start(server, tmp_path, name, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.artifacts.shared_worker", *map(str, words)],
        env={**os.environ, **server, "ALPACA_FARM_CACHE": str(tmp_path / name), "PYTHONPATH": os.getcwd()},
    )


@pytest.fixture
def s3(server, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return f"s3://studies/{uuid.uuid4().hex}"


@pytest.mark.slow
def test_a_folder_whose_first_object_comes_behind_the_listing_is_empty(s3, monkeypatch):
    bucket, other = Bucket(s3), Bucket(s3)
    listed = bucket._fs._lsdir

    async def overtaken(path, **named):
        found = await listed(path, **named)
        if path.endswith("chain") and not found:
            await asyncio.to_thread(other.put, "chain/00000001", b"first")
        return found

    monkeypatch.setattr(bucket._fs, "_lsdir", overtaken)
    assert bucket.list("chain") == {}
    assert bucket.list("chain") == {"chain/00000001": 5}


@pytest.mark.slow
def test_two_workers_with_separate_disks_share_one_chain(s3, server, tmp_path):
    log = tmp_path / "log"
    for name, factor in (("a", 2), ("b", 3), ("a", 3)):
        assert start(server, tmp_path, name, "chain", s3, log, factor).wait(120) == 0
    assert log.read_text().splitlines() == [
        "False False outputs/scaled@v1",
        "True False outputs/scaled@v2",
        "True True outputs/scaled@v2",
    ]


@pytest.mark.slow
def test_a_hundred_attempts_at_one_stage_run_it_once(s3, server, tmp_path):
    log = tmp_path / "log"
    workers = [start(server, tmp_path, f"w{n}", "crowd", s3, log, 25) for n in range(4)]
    assert [worker.wait(280) for worker in workers] == [0] * 4
    lines = log.read_text().splitlines()
    assert lines.count("ran") == 1
    assert lines.count("got dataset/slow@v1 x") == 100


@pytest.mark.slow
def test_killed_in_the_middle_of_an_upload_nothing_is_visible_and_the_next_goes_on(s3, server, tmp_path):
    log, rest = tmp_path / "log", tmp_path / "rest"
    worker = start(server, tmp_path, "a", "upload", s3, log, 0.2)
    deadline = time.monotonic() + 100
    while not log.exists() or len(log.read_text().splitlines()) < 8:
        assert time.monotonic() < deadline
        assert worker.poll() is None
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    bucket = Bucket(s3)
    assert 8 <= len(bucket.list("blobs")) < 64
    assert bucket.list("artifacts") == {}
    assert bucket.list("fingerprints") == {}

    assert start(server, tmp_path, "b", "upload", s3, rest, 0).wait(120) == 0
    assert len(bucket.list("blobs")) == 64
    assert len(rest.read_text().splitlines()) <= 64 - 8
    found = Store(s3).get("large@v1")
    assert (found.path / "large.bin").read_bytes() == LARGE
