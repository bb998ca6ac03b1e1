"""A bucket that is out of reach for a while: waited for, with an end, and nothing done twice or lost."""

import threading
import uuid

import pytest

from alpaca_farm_core.artifacts import bucket as buckets
from alpaca_farm_core.artifacts import lease as leases
from alpaca_farm_core.artifacts.bucket import Bucket
from alpaca_farm_core.artifacts.store import Store
from alpaca_farm_core.errors import StoreError
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageResult
from tests.artifacts.s3_server import s3_server
from tests.artifacts.shared_worker import NoConfig
from tests.outage import Line


@pytest.fixture
def bucket(monkeypatch):
    monkeypatch.setattr(buckets, "_FIRST_PAUSE", 0.01)
    return Bucket(f"memory://{uuid.uuid4().hex}/farm")


def fail(bucket, monkeypatch, method, times, error, before=True):
    """Make the next calls of a method fail, before or after they have done their work; return what counts them."""
    real, calls = getattr(bucket._fs, method), []

    def failing(*words, **named):
        calls.append(words)
        if len(calls) > times:
            return real(*words, **named)
        if not before:
            real(*words, **named)
        raise error

    monkeypatch.setattr(bucket._fs, method, failing)
    return calls


def test_a_bucket_that_has_answered_is_waited_for(bucket, monkeypatch):
    bucket.put("a", b"1")
    calls = fail(bucket, monkeypatch, "cat_file", 3, ConnectionResetError("gone"))
    assert bucket.read("a") == b"1"
    assert len(calls) == 4


def test_one_that_never_answered_is_not(bucket, monkeypatch):
    calls = fail(bucket, monkeypatch, "cat_file", 3, ConnectionRefusedError("nobody there"))
    with pytest.raises(StoreError, match="out of reach: nobody there") as caught:
        bucket.read("a")
    assert len(calls) == 1
    assert caught.value.transient
    assert "checkpoints are kept" in caught.value.next_action


def test_the_wait_ends_and_the_next_call_does_not_wait_again(bucket, monkeypatch):
    monkeypatch.setattr(buckets, "OUTAGE_SECONDS", 0.2)
    bucket.put("a", b"1")
    calls = fail(bucket, monkeypatch, "find", 10**6, TimeoutError("too long"))
    with pytest.raises(StoreError, match="out of reach"):
        bucket.list("")
    assert len(calls) > 2
    n = len(calls)
    with pytest.raises(StoreError):
        bucket.list("")
    assert len(calls) == n + 1


def test_a_refusal_is_not_repeated(bucket, monkeypatch):
    bucket.put("a", b"1")
    calls = fail(bucket, monkeypatch, "cat_file", 3, PermissionError("Access Denied"))
    with pytest.raises(StoreError, match="cannot be used: Access Denied") as caught:
        bucket.read("a")
    assert len(calls) == 1
    assert not caught.value.transient


def test_a_conditional_write_whose_answer_was_lost_is_known_as_ours(bucket, monkeypatch):
    bucket.put("other", b"1")
    fail(bucket, monkeypatch, "pipe_file", 1, ConnectionResetError("answer lost"), before=False)
    assert bucket.put_if_absent("a", b"mine")
    assert not bucket.put_if_absent("a", b"another's")
    assert bucket.read("a") == b"mine"


@pytest.fixture
def line(monkeypatch, tmp_path):
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto.server", reason="moto is not installed (extra: slow)")
    with s3_server() as environment:
        line = Line(int(environment["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        for name, value in {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{line.port}"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("ALPACA_FARM_CACHE", str(tmp_path / "a"))
        yield line
        line.cut()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_s3_server_out_of_reach_in_mid_stage(line, monkeypatch):
    monkeypatch.setattr(leases, "SILENCE_SECONDS", 6.0)  # the second try takes the lease of the first one over
    store, done = Store(f"s3://studies/{uuid.uuid4().hex}"), []

    def work(context):
        steps = context.scratch / "checkpoints"
        steps.mkdir(exist_ok=True)
        done.append([path.name for path in steps.iterdir()])
        (steps / f"step_{len(done)}").write_text("state")
        line.cut()
        if len(done) == 1:
            threading.Timer(15, line.mend).start()
        (context.output / "x").write_text(f"{context.config}")
        return StageResult(metrics={})

    class Another(NoConfig):
        pass

    first = run_stage(Stage("first", 1, NoConfig, {}, "dataset", work), NoConfig(), {}, store=store, name="first")
    assert Store(store.location).get("first@v1").manifest.content == first.artifact.manifest.content

    monkeypatch.setattr(buckets, "OUTAGE_SECONDS", 5.0)
    second = Stage("second", 1, Another, {}, "dataset", work)
    with pytest.raises(StoreError, match="out of reach") as caught:
        run_stage(second, Another(), {}, store=store, name="second")
    assert caught.value.transient
    line.mend()
    assert [a.reference for a in Store(store.location).artifacts()] == ["dataset/first@v1"]
    monkeypatch.setattr(line, "cut", lambda: None)
    run_stage(second, Another(), {}, store=Store(store.location), name="second")
    assert done == [[], [], ["step_2"]]
    assert Store(store.location).get("second@v1").version == 1
