"""What was spent, by account: kept in the call cache's own database, in the same transactions.

In: worst cases before a call, prices after it. Out: totals, and whether a further call fits a budget.
An account is what a budget belongs to: one logical run, over its resumes and all its processes. Money
is in picodollars. An amount is *held* while its call is in flight, *spent* when the answer is committed,
and *lost* when a call may have been paid for without an answer (a timeout, a killed process): lost
money counts against the budget at its worst case.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpaca_farm_core.annotators.prices import count

Sql = Callable[..., sqlite3.Cursor]
BATCH_HOLDER = "batch:"  # prefix of holders that outlive their process, as the provider goes on working

_TABLES = (
    "CREATE TABLE IF NOT EXISTS Account (name TEXT PRIMARY KEY, spent INTEGER NOT NULL DEFAULT 0,"
    " lost INTEGER NOT NULL DEFAULT 0, held INTEGER NOT NULL DEFAULT 0, n_lost INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS Held (key TEXT PRIMARY KEY, account TEXT NOT NULL, holder TEXT NOT NULL,"
    " amount INTEGER NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS Granted (account TEXT PRIMARY KEY, amount INTEGER NOT NULL)",
    # amount is NULL where the price is not known.
    "CREATE TABLE IF NOT EXISTS Spending (id INTEGER PRIMARY KEY, account TEXT NOT NULL, annotator TEXT NOT NULL,"
    " model TEXT NOT NULL, key TEXT NOT NULL, amount INTEGER, prompt_tokens INTEGER, completion_tokens INTEGER,"
    " at REAL NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One bought answer: what to write down when it is committed."""

    account: str
    annotator: str
    model: str
    key: str
    amount: int | None
    usage: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's picodollars; `n_lost` counts the calls behind `lost`, `elsewhere` is other machines' part."""

    spent: int = 0
    lost: int = 0
    held: int = 0
    n_lost: int = 0
    elsewhere: int = 0

    @property
    def committed(self) -> int:
        """All that counts against a budget."""
        return self.spent + self.lost + self.held + self.elsewhere


class Ledger:
    """Accounts in an open database. Writing methods must be called inside a transaction of the owner's."""

    def __init__(self, sql: Callable[[], Sql]) -> None:
        self._connection = sql
        for statement in _TABLES:
            sql()(statement)

    def balance(self, account: str) -> Balance:
        """Return an account's totals; zeros when it is new."""
        row = self._sql("SELECT spent, lost, held, n_lost FROM Account WHERE name = ?", (account,)).fetchone()
        return Balance(*row) if row else Balance()

    def accounts(self) -> dict[str, Balance]:
        """Return all accounts by name."""
        rows = self._sql("SELECT name, spent, lost, held, n_lost FROM Account ORDER BY name")
        return {name: Balance(*totals) for name, *totals in rows}

    def hold(self, account: str, holder: str, amounts: Sequence[tuple[str, int]], budget: int | None) -> int:
        """Reserve (call key, worst case) in order while they fit the budget; return how many did.

        What an earlier holder of the same key left behind is lost, unless it is a batch that goes on at the
        same price: then its reservation stands.
        """
        room = None if budget is None else budget - self.balance(account).committed
        n = 0
        for key, amount in amounts:
            if self._in_batch(key, amount):
                n += 1
                continue
            if room is not None and amount > room:
                break
            self._lose("key = ?", key)
            self._sql("INSERT INTO Held VALUES (?, ?, ?, ?, ?)", (key, account, holder, amount, time.time()))
            self._add(account, held=amount)
            room = None if room is None else room - amount
            n += 1
        return n

    def spend(self, entry: Entry) -> None:
        """Write down a bought answer and give back what was held for it."""
        self.free(entry.key)
        usage = entry.usage
        values = (entry.account, entry.annotator, entry.model, entry.key, entry.amount)
        tokens = (count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")))
        self._sql(
            "INSERT INTO Spending (account, annotator, model, key, amount, prompt_tokens, completion_tokens, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*values, *tokens, time.time()),
        )
        self._add(entry.account, spent=entry.amount or 0)

    def free(self, key: str) -> None:
        """Give back what is held for a call that cost nothing."""
        for account, amount in self._sql("SELECT account, amount FROM Held WHERE key = ?", (key,)).fetchall():
            self._add(account, held=-amount)
        self._sql("DELETE FROM Held WHERE key = ?", (key,))

    def lose(self, key: str) -> None:
        """Give up what is held for a call that may have been paid for."""
        self._lose("key = ?", key)

    def lose_try(self, key: str, budget: int | None) -> bool:
        """Count a try as lost and keep its amount held for another one; False when that one does not fit."""
        for account, amount in self._sql("SELECT account, amount FROM Held WHERE key = ?", (key,)).fetchall():
            if budget is not None and self.balance(account).committed + amount > budget:
                self.lose(key)
                return False
            self._add(account, lost=amount, n_lost=1)
        return True

    def pass_on(self, keys: Iterable[str], holder: str) -> None:
        """Make `holder` the holder of calls in flight."""
        for key in keys:
            self._sql("UPDATE Held SET holder = ? WHERE key = ?", (holder, key))

    def holders(self, account: str | None = None) -> list[str]:
        """Return who holds something (of one account)."""
        where, values = ("", ()) if account is None else (" WHERE account = ?", (account,))
        return [holder for (holder,) in self._sql(f"SELECT DISTINCT holder FROM Held{where}", values)]

    def lose_all(self, holder: str) -> None:
        """Give up all that a dead holder held."""
        self._lose("holder = ?", holder)

    def granted(self, account: str) -> int:
        """Return what this machine may commit of a budget that several share."""
        row = self._sql("SELECT amount FROM Granted WHERE account = ?", (account,)).fetchone()
        return int(row[0]) if row else 0

    def grant(self, account: str, amount: int) -> None:
        """Note what this machine may commit of a budget that several share."""
        self._sql("INSERT OR REPLACE INTO Granted VALUES (?, ?)", (account, amount))

    def spending(self) -> list[tuple[str, str, str, int, int, int, int, int]]:
        """Return (account, annotator, model, answers, picodollars, unpriced, prompt and completion tokens) sums."""
        return self._sql(
            "SELECT account, annotator, model, COUNT(*), COALESCE(SUM(amount), 0), SUM(amount IS NULL),"
            " COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
            " FROM Spending GROUP BY account, annotator, model ORDER BY account, annotator, model"
        ).fetchall()

    def mean_price(self, annotator: str, model: str) -> float | None:
        """Return the mean picodollars of an annotator's bought answers; None when there are none."""
        query = "SELECT AVG(amount) FROM Spending WHERE annotator = ? AND model = ?"
        mean: float | None = self._sql(query, (annotator, model)).fetchone()[0]
        return mean

    def _in_batch(self, key: str, amount: int) -> bool:
        row = self._sql("SELECT holder, amount FROM Held WHERE key = ?", (key,)).fetchone()
        return row is not None and row[0].startswith(BATCH_HOLDER) and row[1] == amount

    def _lose(self, where: str, value: str) -> None:
        rows = self._sql(f"SELECT account, amount FROM Held WHERE {where}", (value,)).fetchall()
        for account, amount in rows:
            self._add(account, held=-amount, lost=amount, n_lost=1)
        if rows:
            self._sql(f"DELETE FROM Held WHERE {where}", (value,))

    def _add(self, account: str, spent: int = 0, lost: int = 0, held: int = 0, n_lost: int = 0) -> None:
        self._sql(
            "INSERT INTO Account VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
            " spent = spent + excluded.spent, lost = lost + excluded.lost, held = held + excluded.held,"
            " n_lost = n_lost + excluded.n_lost",
            (account, spent, lost, held, n_lost),
        )

    def _sql(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._connection()(query, values)
