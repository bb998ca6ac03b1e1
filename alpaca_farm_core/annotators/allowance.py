"""One budget on many machines: each spends only what it has been granted, in a table that all of them share.

In: an account's ledger on this machine's disk, and the bucket of a store for many machines. Out: how much this machine
may have spent, lost and held in all. The table is a chain of objects `budgets/<account>/<n>`, machine → picodollars,
each written only if absent, so that of two machines one is first; the newest is in force. A grant grows before money
is spent and shrinks to what was spent when a stage is done, so the grants never exceed the budget, however machines
die. What a dead one had been granted and not spent is free again when it comes back.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.artifacts.bucket import Bucket, as_json
from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.artifacts.locks import exclusive
from alpaca_farm_core.artifacts.store import SHARED_AT
from alpaca_farm_core.errors import StoreError

STEP = 50
"""A grant grows by this part of the budget at least: as much may lie idle on each machine."""

PATIENCE_S = 5.0
"""After a refusal the table is not asked again for so long; another machine may give something back meanwhile."""

_KEPT = 20  # entries of the chain that stay, for people who look
_MACHINE = "machine.json"

Grants = Mapping[str, int]


class Allowance:
    """The part of an account's budget that is this machine's.

    Args:
        calls: The call cache with the account's ledger. A copy of its folder counts as the same machine.
        bucket: Of the store that the cache belongs to.
        account: Name of the account.
    """

    def __init__(self, calls: CallCache, bucket: Bucket, account: str) -> None:
        self._calls, self._bucket, self._account = calls, bucket, account
        self._prefix = f"budgets/{hashlib.sha256(account.encode()).hexdigest()[:32]}"
        self._lock = calls.folder / "allowance.lock"
        self._refused_until = 0.0

    @classmethod
    def of(cls, calls: CallCache, account: str) -> Allowance | None:
        """Return the allowance of an account; None where the cache belongs to a store of one machine."""
        marker = calls.folder / SHARED_AT
        return cls(calls, _bucket(read_json(marker)["url"]), account) if marker.exists() else None

    def cap(self, budget: int) -> int:
        """What this machine may have committed now; to be asked in the transaction that holds money."""
        return min(budget, self._calls.ledger.granted(self._account))

    def extend(self, budget: int, amount: int) -> bool:
        """Ask for room for `amount` more; tell whether it was granted.

        Raises:
            StoreError: the bucket cannot be used.
        """
        if time.monotonic() < self._refused_until:
            return False
        with exclusive(self._lock):
            needed = self._committed() + amount

            def change(grants: Grants) -> Grants:
                own = grants.get(self._machine, 0)
                room = budget - sum(grants.values()) + own
                wanted = max(own, min(room, needed + budget // STEP))  # never less: others here may hold it by now
                return {**grants, self._machine: wanted} if wanted >= needed else grants

            granted = self._update(change)
        if granted < needed:
            self._refused_until = time.monotonic() + PATIENCE_S
        return granted >= needed

    def look(self) -> int:
        """Return what other machines have been granted, of which they have spent nearly all.

        Raises:
            StoreError: the bucket cannot be used.
        """
        with exclusive(self._lock):
            return sum(amount for machine, amount in self._newest()[1].items() if machine != self._machine)

    def settle(self) -> None:
        """Give back what is granted and not committed; what a bucket out of reach is not told stays granted."""
        with exclusive(self._lock), suppress(StoreError):
            with self._calls.transaction():
                committed = self._calls.ledger.balance(self._account).committed
                self._calls.ledger.grant(self._account, committed)  # here first: nobody may hold it any more
            self._update(lambda grants: {**grants, self._machine: committed})

    @property
    def _machine(self) -> str:
        file = self._calls.folder / _MACHINE
        if not file.exists():  # the caller holds the lock
            write_json(file, {"id": uuid.uuid4().hex})
        return str(read_json(file)["id"])

    def _committed(self) -> int:
        with self._calls.readable_errors():
            return self._calls.ledger.balance(self._account).committed

    def _update(self, change: Callable[[Grants], Grants]) -> int:
        """Change the table, as often as it takes to be the first; return this machine's grant, noted here too."""
        while True:
            newest, grants = self._newest()
            wanted = change(grants)
            if wanted == grants or self._write(newest + 1, wanted):
                break
        own = wanted.get(self._machine, 0)
        with self._calls.transaction():
            self._calls.ledger.grant(self._account, own)
        return own

    def _newest(self) -> tuple[int, Grants]:
        while numbers := self._numbers():
            content = self._bucket.read(self._key(numbers[-1]))
            if content is not None:
                return numbers[-1], json.loads(content)["grants"]
        return 0, {}

    def _write(self, number: int, grants: Grants) -> bool:
        """Write an entry; False if another machine was first, or this one so late that its entry counts for nothing."""
        if not self._bucket.put_if_absent(
            self._key(number), as_json({"account": self._account, "grants": dict(grants)})
        ):
            return False
        numbers = self._numbers()
        for old in numbers[:-_KEPT]:
            self._bucket.delete(self._key(old))
        return numbers[-1] == number

    def _numbers(self) -> list[int]:
        return sorted(int(key.rpartition("/")[2]) for key in self._bucket.list(self._prefix))

    def _key(self, number: int) -> str:
        return f"{self._prefix}/{number:08d}"


@cache
def _bucket(url: str) -> Bucket:
    return Bucket(url)
