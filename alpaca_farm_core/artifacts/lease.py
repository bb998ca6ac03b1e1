"""Leases in a bucket: one holder at a time on many machines, taken over when the holder is silent.

A lease is a chain of epochs, `leases/<name>/<epoch>`, each written if absent by its one holder, who beats in
`<epoch>.beat`. A waiter that sees no new beat for `SILENCE_SECONDS` by its own clock takes the next epoch;
clocks of machines are never compared for this. A holder that was taken over finds out in `require` (fencing).
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from alpaca_farm_core.artifacts.bucket import Bucket, as_json
from alpaca_farm_core.errors import StoreError

SILENCE_SECONDS = 60.0
"""A holder that says nothing for so long is taken for dead."""

_BEATS_PER_SILENCE = 6
_FIRST_LOOK, _LAST_LOOK = 1 / 60, 1 / 10  # waiters look more and more seldom; parts of SILENCE_SECONDS


class Lease:
    """One epoch of a lease that this process holds."""

    def __init__(self, bucket: Bucket, name: str, epoch: int, token: str) -> None:
        self._bucket, self._name, self._epoch, self._token = bucket, name, epoch, token

    def require(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            StoreError: somebody else took it over, because this process was silent for too long.
        """
        epochs = _epochs(self._bucket, self._name)
        own = self._bucket.read(_key(self._name, self._epoch))
        if not epochs or max(epochs) != self._epoch or own is None or json.loads(own)["token"] != self._token:
            raise StoreError(
                f"Another machine took over {self._name[:12]} while this one was silent for "
                f"{SILENCE_SECONDS:.0f} s or more; nothing was published from here.",
                "Run the same again: it takes what the other machine made.",
            )

    def beat(self) -> None:
        """Say that the holder lives."""
        self._bucket.put(f"{_key(self._name, self._epoch)}.beat", as_json({"at": time.time(), "id": uuid.uuid4().hex}))

    def release(self) -> None:
        """Give the lease back; older epochs go first, so that nobody sees one of them as the newest."""
        for epoch in sorted(e for e in _epochs(self._bucket, self._name) if e <= self._epoch):
            self._bucket.delete(f"{_key(self._name, epoch)}.beat")
            self._bucket.delete(_key(self._name, epoch))


@contextmanager
def leased(
    bucket: Bucket,
    name: str,
    on_wait: Callable[[str], None] | None = None,
    on_beat: Callable[[], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Lease | None]:
    """Hold a lease, waiting for it where somebody else does.

    Args:
        bucket: Where it lies.
        name: Of what.
        on_wait: Called once with who holds it, if it is not free.
        on_beat: Called after each beat.
        enough: Asked while waiting; True ends the wait without the lease, and None is yielded.

    Raises:
        StoreError: the bucket cannot be used.
    """
    lease = _acquire(bucket, name, on_wait, enough)
    if lease is None:
        yield None
        return
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(lease, done, on_beat), daemon=True, name=f"lease {name[:12]}")
    beating.start()
    try:
        yield lease
    finally:
        done.set()
        beating.join()
        with suppress(StoreError):  # unreachable now: it runs out by itself
            lease.release()


def is_leased(bucket: Bucket, name: str) -> bool:
    """Tell whether somebody holds a lease and has beaten lately (by this machine's clock)."""
    epochs = _epochs(bucket, name)
    if not epochs:
        return False
    beat = bucket.read(f"{_key(name, max(epochs))}.beat") or bucket.read(_key(name, max(epochs)))
    return beat is not None and time.time() - json.loads(beat)["at"] < SILENCE_SECONDS


def _acquire(
    bucket: Bucket, name: str, on_wait: Callable[[str], None] | None, enough: Callable[[], bool]
) -> Lease | None:
    token, seen, since = uuid.uuid4().hex, (0, b""), time.monotonic()
    look = _FIRST_LOOK
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    while True:
        newest = max(_epochs(bucket, name), default=0)
        state = (newest, bucket.read(f"{_key(name, newest)}.beat") or b"")
        if state != seen:
            seen, since = state, time.monotonic()
        if newest == 0 or time.monotonic() - since >= SILENCE_SECONDS:
            content = as_json({"token": token, "holder": holder, "at": time.time()})
            if bucket.put_if_absent(_key(name, newest + 1), content):
                return Lease(bucket, name, newest + 1, token)
        if on_wait is not None and newest:
            other = bucket.read(_key(name, newest))
            on_wait(json.loads(other)["holder"] if other else "another machine")
            on_wait = None
        if newest and enough():
            return None
        time.sleep(SILENCE_SECONDS * look * random.uniform(1.0, 1.5))
        look = min(1.3 * look, _LAST_LOOK)


def _beat(lease: Lease, done: threading.Event, on_beat: Callable[[], None] | None) -> None:
    while not done.wait(SILENCE_SECONDS / _BEATS_PER_SILENCE):
        with suppress(StoreError):  # a lost network: the next beat tries again, `require` decides at the end
            lease.beat()
            if on_beat is not None:
                on_beat()


def _epochs(bucket: Bucket, name: str) -> list[int]:
    names = (key.rpartition("/")[2] for key in bucket.list(f"leases/{name}"))
    return [int(last) for last in names if last.isdigit()]


def _key(name: str, epoch: int) -> str:
    return f"leases/{name}/{epoch:08d}"
