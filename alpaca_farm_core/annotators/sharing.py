"""Answers of judges among machines: what one bought, all have before their next stage.

In: a call cache and a bucket. Each machine adds its new answers as `calls/<id>.jsonl`, one object per push, and
takes the objects that it has not seen. Answers are never changed or removed; those already known stay as they
are. Budgets are shared by `allowance`.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.artifacts.bucket import Bucket
from alpaca_farm_core.artifacts.files import canonical_json, read_json, write_json
from alpaca_farm_core.artifacts.shared import SharedStore
from alpaca_farm_core.artifacts.store import Store

_STATE = "shared.json"


class CallSharing:
    """Keeps one machine's cache and a bucket at the same answers.

    Args:
        cache: This machine's answers.
        bucket: The store's objects.
    """

    def __init__(self, cache: CallCache, bucket: Bucket) -> None:
        self._cache, self._bucket = cache, bucket
        self._state: Path = cache.folder / _STATE
        self._busy = threading.Lock()

    def pull(self) -> int:
        """Take answers of other machines; return how many were new."""
        with self._busy:
            top, seen = self._read_state()
            unseen = sorted(set(self._bucket.list("calls")) - set(seen))
            answers: dict[str, Answer] = {}
            for key in unseen:
                rows = map(json.loads, (self._bucket.read(key) or b"").decode("utf-8").splitlines())
                answers |= {row["key"]: Answer.from_json(row["answer"]) for row in rows}
            known = self._cache.read(answers)
            new = {key: answer for key, answer in answers.items() if key not in known}
            with self._cache.transaction():
                nothing_unsent = self._cache.last_row() == top
                self._cache.commit(new)
                top = self._cache.last_row() if nothing_unsent else top  # what came from there need not go back
            write_json(self._state, {"top": top, "seen": [*seen, *unseen]})
            return len(new)

    def push(self) -> int:
        """Add this machine's new answers; return how many there were."""
        with self._busy:
            top, seen = self._read_state()
            last = self._cache.last_row()
            rows = [
                canonical_json({"key": key, "answer": answer.to_json()})
                for key, answer in self._cache.read_rows(top, last).items()
            ]
            if rows:
                key = f"calls/{uuid.uuid4().hex}.jsonl"
                self._bucket.put(key, "\n".join(rows).encode("utf-8"))
                write_json(self._state, {"top": last, "seen": [*seen, key]})
            self._cache.close()
            return len(rows)

    def _read_state(self) -> tuple[int, list[str]]:
        if not self._state.exists():
            return 0, []
        state = read_json(self._state)
        return int(state["top"]), list(state["seen"])


@contextmanager
def shared_calls(store: Store) -> Iterator[None]:
    """Have the answers of all machines inside, and give them ours; nothing for a store on a local folder."""
    if not isinstance(store, SharedStore):
        yield
        return
    sharing = CallSharing(CallCache(store.calls), store.bucket)
    sharing.pull()
    with store.while_locked(sharing.push):
        try:
            yield
        finally:
            sharing.push()
