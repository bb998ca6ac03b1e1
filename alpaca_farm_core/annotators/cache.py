"""Every answer a judge ever gave, on disk for good.

In: call keys and answers. Out: the answers of known keys. A commit is one transaction (the ledger's
entries among it) and is done before anybody uses the answer; nothing is ever evicted; many processes
may share a folder. Knows nothing of judges.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_PICKLE

from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.annotators.key_locks import KeyLocks
from alpaca_farm_core.annotators.ledger import Entry, Ledger, Sql
from alpaca_farm_core.errors import StoreError

_LOCK_WAIT_S = 60.0
_BULK = 500  # keys of one query; SQLite allows 32,766


class _JsonOnlyDisk(diskcache.JSONDisk):  # type: ignore[misc]  # diskcache has no types
    """diskcache's JSON disk with plain text keys, which makes bulk reads possible.

    As it comes, it would still unpickle a row that says it is a pickle: refused here.
    """

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: Any, raw: bool) -> Any:
        if not raw:
            raise ValueError("a key is stored as pickle")
        return key

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == MODE_PICKLE:
            raise ValueError("a value is stored as pickle")
        return super().fetch(mode, filename, value, read)


class CallCache:
    """Answers by key, shared by all stages and processes of a store.

    Args:
        folder: Where the cache lives; made when absent.
        durable: Also survive a power cut (`synchronous=FULL`, a disk flush per commit). Without it a
            commit survives whatever happens to the process, kill -9 included.

    Raises:
        StoreError: the folder cannot be read or written, or is damaged.
    """

    def __init__(self, folder: Path, durable: bool = False) -> None:
        self.folder = folder
        with self.readable_errors():
            folder.mkdir(parents=True, exist_ok=True)
            self._disk = diskcache.Cache(
                str(folder),
                timeout=_LOCK_WAIT_S,
                disk=_JsonOnlyDisk,
                disk_min_file_size=2**30,  # one database file: an answer and its price are one transaction
                eviction_policy="none",
                size_limit=2**62,
                cull_limit=0,
                sqlite_synchronous=2 if durable else 1,
            )
            self.ledger = Ledger(self.sql)
        self.locks = KeyLocks(folder / "calls.lock")

    def sql(self) -> Sql:
        """Return this thread's way to the database."""
        execute: Sql = self._disk._sql
        return execute

    def read(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Return the answers of those keys that have one."""
        wanted = list(keys)
        found: dict[str, Answer] = {}
        with self.readable_errors():
            for start in range(0, len(wanted), _BULK):
                chunk = wanted[start : start + _BULK]
                found |= self._select(f"key IN ({','.join('?' * len(chunk))})", chunk)
        return found

    def walk(self) -> Iterator[dict[str, Answer]]:
        """Yield all answers, some hundreds at a time, in the order of their keys."""
        last = ""
        while True:
            with self.readable_errors():
                found = self._select("key > ? ORDER BY key LIMIT ?", [last, _BULK])
            if not found:
                return
            yield found
            last = max(found)

    def last_row(self) -> int:
        """Number of the newest row; rows are numbered in the order in which answers came."""
        with self.readable_errors():
            return int(self.sql()("SELECT COALESCE(MAX(rowid), 0) FROM Cache").fetchone()[0])

    def read_rows(self, after: int, last: int) -> dict[str, Answer]:
        """Return the answers of rows `after` + 1 … `last`."""
        with self.readable_errors():
            return self._select("rowid > ? AND rowid <= ?", [after, last])

    def has_prefix(self, prefix: str) -> bool:
        """Whether any key begins with `prefix`."""
        query = "SELECT 1 FROM Cache WHERE key >= ? AND key < ? LIMIT 1"
        with self.readable_errors():
            return self.sql()(query, (prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))).fetchone() is not None

    def commit(self, answers: Mapping[str, Answer], entries: Sequence[Entry] = ()) -> None:
        """Keep answers for good, and what they cost, all in one transaction.

        Raises:
            StoreError: full disk, read-only folder, or another process keeps the database locked.
        """
        with self.transaction():
            for key, answer in answers.items():
                self._disk.set(key, answer.to_json())
            for entry in entries:
                self.ledger.spend(entry)

    def remove(self, keys: Iterable[str]) -> int:
        """Forget answers, on the user's express wish; return how many there were."""
        with self.transaction():
            return sum(bool(self._disk.delete(key)) for key in keys)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, for whatever is done inside."""
        with self.readable_errors(), self._disk.transact():
            yield

    def _select(self, where: str, values: Sequence[Any]) -> dict[str, Answer]:
        rows = self.sql()(f"SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND {where}", values)
        fetch = self._disk._disk.fetch
        return {key: Answer.from_json(fetch(mode, name, value, False)) for key, mode, name, value in rows.fetchall()}

    def claim(self, key: str) -> bool:
        """Take the right to make this call; False while a thread or process has it. It dies with us."""
        with self.readable_errors():
            return self.locks.acquire(key)

    def release(self, key: str) -> None:
        """Give back a claim."""
        self.locks.release(key)

    def __len__(self) -> int:
        with self.readable_errors():
            return len(self._disk)

    def close(self) -> None:
        """Close this thread's database connection; the next use opens another."""
        self._disk.close()

    @contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn errors of the disk and of the database into `StoreError`."""
        try:
            yield
        except diskcache.Timeout:
            raise StoreError(
                f"The call cache {self.folder} stayed locked for {_LOCK_WAIT_S:.0f} s.",
                "See which process holds it (fuser), then run again: committed answers are kept.",
            ) from None
        except (sqlite3.OperationalError, OSError) as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"The call cache {self.folder} cannot be used: {error}.",
                "Check free space and permissions, then run again: committed answers are kept.",
            ) from None
        except (sqlite3.DatabaseError, zlib.error, ValueError, TypeError) as error:
            raise StoreError(
                f"The call cache {self.folder} is damaged: {error}.",
                "Restore cache.db from a backup, or move the folder away; answers in it would be bought again.",
            ) from None
