"""The call cache: commits, claims, damage, other processes."""

import hashlib
import os
import pickle
import sqlite3
import subprocess
import sys
import zlib

import pytest

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.errors import StoreError

KEY = "ab" * 32
OTHER = "cd" * 32


def request(**changes):
    values = {"model": "m", "messages": ({"role": "user", "content": "hi"},), "sampling": {"temperature": 0}}
    return Request(**(values | changes))


def test_the_key_is_the_same_on_every_machine_and_complete():
    text = '[1,"m",[{"content":"hi","role":"user"}],{"temperature":0},0]'
    keys = {
        request().key,
        request(model="n").key,
        request(messages=({"role": "system", "content": "hi"},)).key,
        request(messages=({"role": "user", "content": "ho"},)).key,
        request(sampling={"temperature": 1}).key,
        request(sampling={"temperature": 0, "max_tokens": 5}).key,
        request(sample_index=1).key,
    }
    assert len(keys) == 7
    assert request().key == hashlib.sha256(text.encode()).hexdigest()


def test_reads_back_what_was_committed(tmp_path):
    answer = Answer("Output (a)", "stop", {"total_tokens": 9}, "m", "fp", "", 0.25, {"content": [{"logprob": -0.1}]})
    cache = CallCache(tmp_path)
    cache.commit({KEY: answer})
    cache.close()
    assert CallCache(tmp_path).read([OTHER, KEY]) == {KEY: answer}


def test_nothing_is_evicted_past_diskcaches_own_limit(tmp_path):
    cache = CallCache(tmp_path)
    assert cache._disk.eviction_policy == "none"
    assert cache._disk.size_limit > 2**60
    big = os.urandom(100_000).hex()
    cache.commit({f"{i:064x}": Answer(big) for i in range(20)})
    assert len(cache) == 20
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []  # all in the one database


def test_nothing_is_evicted_past_a_limit_that_somebody_set(tmp_path):
    cache = CallCache(tmp_path)
    cache._disk.reset("size_limit", 10_000)
    answers = {f"{i:064x}": Answer(os.urandom(2000).hex()) for i in range(50)}
    for key, answer in answers.items():
        cache.commit({key: answer})
    cache._disk.cull()
    cache.close()
    assert CallCache(tmp_path).read(answers) == answers


def test_reads_in_bulk_and_walks_in_order(tmp_path):
    cache = CallCache(tmp_path)
    answers = {hashlib.sha256(str(i).encode()).hexdigest(): Answer(f"answer {i}") for i in range(1203)}
    cache.commit(answers)
    wanted = [*list(answers)[::-1], OTHER]
    assert cache.read(wanted) == answers
    walked = list(cache.walk())
    assert len(walked) > 1
    assert [key for part in walked for key in part] == sorted(answers)


def test_a_transaction_is_all_or_nothing(tmp_path):
    cache = CallCache(tmp_path)
    bad = Answer("x", usage={"n": object()})
    with pytest.raises(StoreError):
        cache.commit({KEY: Answer("fine"), OTHER: bad})
    assert len(cache) == 0


@pytest.mark.parametrize("durable", [False, True])
def test_power_loss_setting(tmp_path, durable):
    cache = CallCache(tmp_path, durable=durable)
    assert cache._disk.sqlite_synchronous == (2 if durable else 1)


def test_claims_exclude_threads_caches_and_processes(tmp_path):
    one, two = CallCache(tmp_path), CallCache(tmp_path)
    code = (
        "import sys; from pathlib import Path; from alpaca_farm_core.annotators.key_locks import KeyLocks\n"
        "locks = KeyLocks(Path(sys.argv[1]) / 'calls.lock')\n"
        "print(locks.acquire(sys.argv[2]), locks.acquire(sys.argv[3]))"
    )

    def elsewhere():
        command = [sys.executable, "-c", code, str(tmp_path), KEY, OTHER]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert one.claim(KEY)
    assert not one.claim(KEY)
    assert not two.claim(KEY)
    assert two.claim(OTHER)
    assert elsewhere() == ["False", "False"]
    two.release(OTHER)
    assert elsewhere() == ["False", "True"]
    assert one.claim(OTHER)  # the other process is gone, and its claim with it
    one.release(KEY)
    one.release(OTHER)


def test_a_forked_child_does_not_own_its_parents_claims(tmp_path):
    cache = CallCache(tmp_path)
    assert cache.claim(KEY)
    child = os.fork()
    if child == 0:
        os._exit(1 if CallCache(tmp_path).claim(KEY) else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert not cache.claim(KEY)  # and the child's end did not free it
    cache.release(KEY)


def test_damage_is_named_and_nothing_is_unpickled(tmp_path):
    (tmp_path / "cache.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="is damaged"):
        CallCache(tmp_path)
    cache = CallCache(tmp_path / "two")
    cache.commit({KEY: Answer("x")})
    with sqlite3.connect(tmp_path / "two" / "cache.db") as database:
        database.execute("UPDATE Cache SET mode = 4, value = ?", [pickle.dumps({"text": "evil"})])
    database.close()
    with pytest.raises(StoreError, match="stored as pickle"):
        cache.read([KEY])
    with sqlite3.connect(tmp_path / "two" / "cache.db") as database:
        database.execute("UPDATE Cache SET mode = 1, value = ?", [zlib.compress(b'{"words": "newer version"}')])
    database.close()
    with pytest.raises(StoreError, match="is damaged"):
        cache.read([KEY])


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "calls").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be used"):
        CallCache(tmp_path / "calls")


def test_a_cut_off_database_is_named(tmp_path):
    cache = CallCache(tmp_path)
    cache.commit({f"{i:064x}": Answer(os.urandom(500).hex()) for i in range(300)})
    cache.close()
    data = (tmp_path / "cache.db").read_bytes()
    (tmp_path / "cache.db").write_bytes(data[: len(data) // 3])
    with pytest.raises(StoreError, match="is damaged") as caught:
        list(CallCache(tmp_path).walk())
    assert "backup" in caught.value.next_action


def test_a_lost_lock_file_is_made_again(tmp_path):
    cache = CallCache(tmp_path)
    assert cache.claim(KEY)
    cache.release(KEY)
    (tmp_path / "calls.lock").unlink()
    assert cache.claim(KEY)
    cache.release(KEY)


def test_a_full_disk_stops_before_the_answer_is_used(tmp_path):
    cache = CallCache(tmp_path)
    cache._disk._sql("PRAGMA max_page_count = 20")  # SQLite's own way to run out of space
    with pytest.raises(StoreError, match="full"):
        cache.commit({f"{i:064x}": Answer(os.urandom(4000).hex()) for i in range(100)})
    assert len(cache) == 0
