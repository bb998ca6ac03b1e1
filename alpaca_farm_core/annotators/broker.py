"""Between annotators and judges: each distinct question is asked once, and kept before it is used.

In: requests, in any number and with repeats. Out: one outcome per request, in order. The cache is
read first; what is missing is handed out call by call, each to one worker of one process at a time,
once its worst case fits the budget; an answer is committed, with its price, before anybody sees it.
Knows neither prompts nor HTTP.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from alpaca_farm_core.annotators.allowance import Allowance
from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Failure, Outcome, Request
from alpaca_farm_core.annotators.ledger import BATCH_HOLDER, Balance, Entry
from alpaca_farm_core.annotators.prices import usd
from alpaca_farm_core.annotators.purse import Purse
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress

POLL_S = 0.05


class Judge(Protocol):
    """Whatever can answer requests: an API, the gold utility, a batch endpoint, a local model."""

    def work(self, jobs: Jobs) -> None:
        """Take jobs until none is left, and settle each by `commit` or `fail`.

        Raises:
            AnnotationError: the judge cannot be used at all; what was committed stays.
        """


@dataclass(frozen=True)
class Payer:
    """On whose account calls are booked, and under which annotator's name; free calls have no payer."""

    purse: Purse
    annotator: str


class Jobs:
    """Calls still to be made, for one judge in one thread.

    A job that another thread or process is making waits at the end of the queue: its answer is taken
    from the cache when it is there, and the call is ours when its maker gave up or died.
    """

    def __init__(
        self,
        cache: CallCache,
        requests: Sequence[Request],
        stats: CallStats,
        progress: Progress,
        payer: Payer | None = None,
    ) -> None:
        self.cache = cache
        self.outcomes: dict[str, Outcome] = {}
        self.stats = stats
        self.progress = progress
        self.by_batch = False  # a judge that pays the Batch API's prices sets this
        self._queue = deque(requests)
        self._taken: dict[str, Request] = {}
        self._payer = payer
        self._holder = uuid.uuid4().hex
        self._allowance = None if payer is None else Allowance.of(cache, payer.purse.account)
        if payer is not None:
            cache.claim(self._holder)  # as long as this lock is held, others know that we live
            self._bury_the_dead()

    def __len__(self) -> int:
        """Jobs not taken yet; when `take` gave none, all of them are being made elsewhere."""
        return len(self._queue)

    def waiting(self) -> tuple[Request, ...]:
        """Jobs not taken yet, in order."""
        return tuple(self._queue)

    def take(self, n: int = 1) -> list[Request]:
        """Claim up to `n` jobs; [] when there is none to make now (then, unless none is left, wait POLL_S).

        Those left are being made elsewhere, or do not fit the budget until calls in flight show their price.

        Raises:
            BudgetReachedError: nothing is in flight, and the next call does not fit the budget.
            ConfigError: there is a budget, but the model's price is not known.
        """
        while self._queue:
            claimed = self._claim(n)
            if not claimed:
                return []
            known = self.cache.read([request.key for request in claimed])
            ready = []
            for request in claimed:
                self._taken[request.key] = request
                if request.key in known:  # answered elsewhere since the first look
                    self._found(known[request.key])
                    self._settle(request.key, known[request.key])
                else:
                    ready.append(request)
            if ready:
                return self._afford(ready)
        return []

    def commit(self, answers: Mapping[str, Answer], free: bool = False) -> None:
        """Keep answers to taken jobs and what they cost (one transaction), then let them be used.

        `free` tells that the provider asked nothing for them (a content filter's refusal).
        """
        if not answers:
            return
        now = datetime.now(UTC).isoformat(timespec="seconds")
        dated = {key: replace(answer, answered_at=answer.answered_at or now) for key, answer in answers.items()}
        priced = {key: self._priced(self._taken[key], answer, free) for key, answer in dated.items()}
        self.cache.commit(
            {key: answer for key, (answer, _) in priced.items()},
            [entry for _, entry in priced.values() if entry is not None],
        )
        self.stats.n_called += len(priced)
        for key, (answer, _) in priced.items():
            if answer.price_usd and self._payer is not None:
                self.stats.spent_usd += answer.price_usd
                self.stats.spent_by[self._payer.annotator] += answer.price_usd
            self._settle(key, answer)

    def fail(self, request: Request, reason: str, paid: bool = False) -> None:
        """Settle a taken job without an answer: counted, not kept, asked again by the next run.

        `paid` tells that the last try may have been paid for.
        """
        if self._payer is not None:
            with self.cache.transaction():
                if paid:
                    self.cache.ledger.lose(request.key)
                else:
                    self.cache.ledger.free(request.key)
            self.stats.lost_usd += self._worst_usd(request) if paid else 0.0
        self.stats.n_failed += 1
        self._settle(request.key, Failure(reason))

    def try_again(self, request: Request) -> bool:
        """Count a try that may have been paid for; False when the budget has no room for another one now.

        Then the job is back in the queue, to be taken when there is room.
        """
        if self._payer is None:
            return True
        self.stats.lost_usd += self._worst_usd(request)
        with self.cache.transaction():
            fits = self.cache.ledger.lose_try(request.key, self._cap(self._payer.purse))
        if not fits:
            self._put_back(request)
        return fits

    def put_back(self, request: Request) -> None:
        """Give a taken job back to the queue, unpaid."""
        if self._payer is not None:
            with self.cache.transaction():
                self.cache.ledger.free(request.key)
        self._put_back(request)

    def pass_on(self, keys: Sequence[str], holder: str) -> None:
        """Let what is held for taken jobs outlive this process, as the provider has them in a batch."""
        with self.cache.transaction():
            self.cache.ledger.pass_on(keys, BATCH_HOLDER + holder)

    def release_all(self) -> None:
        """Give back the claims of jobs taken but not settled; what they hold counts as lost from now on."""
        for key in self._taken:
            self.cache.release(key)
        self._taken.clear()
        if self._payer is not None:
            self.cache.release(self._holder)
        if self._allowance is not None:
            self._allowance.settle()

    def balance(self, purse: Purse) -> Balance:
        """The account's totals, with what other machines were granted where there is a budget to share."""
        with self.cache.readable_errors():
            balance = self.cache.ledger.balance(purse.account)
        if self._allowance is None or purse.budget is None:
            return balance
        return replace(balance, elsewhere=self._allowance.look())

    def close_thread(self) -> None:
        """Close the calling thread's cache connection."""
        self.cache.close()

    def _claim(self, n: int) -> list[Request]:
        claimed: list[Request] = []
        for _ in range(len(self._queue)):
            if len(claimed) == n:
                break
            request = self._queue.popleft()
            if self.cache.claim(request.key):
                claimed.append(request)
            else:
                self._queue.append(request)
        return claimed

    def _afford(self, ready: list[Request]) -> list[Request]:
        """Keep those jobs whose worst case fits the budget; put the others back to the front."""
        if self._payer is None:
            return ready
        purse = self._payer.purse
        amounts = [(request.key, purse.worst(request, self.by_batch) or 0) for request in ready]
        n = self._hold(purse, amounts)
        if n == 0 and self._allowance and purse.budget and self._allowance.extend(purse.budget, amounts[0][1]):
            n = self._hold(purse, amounts)
        for request in reversed(ready[n:]):
            self._put_back(request)
        if n == 0 and not self._taken and not self._others_spend(purse.account):
            raise purse.exhausted(self.balance(purse), len(self._queue), amounts[0][1])
        return ready[:n]

    def _hold(self, purse: Purse, amounts: Sequence[tuple[str, int]]) -> int:
        with self.cache.transaction():
            return self.cache.ledger.hold(purse.account, self._holder, amounts, self._cap(purse))

    def _cap(self, purse: Purse) -> int | None:
        """What this machine may commit; asked in the transaction that holds money."""
        if purse.budget is None or self._allowance is None:
            return purse.budget
        return self._allowance.cap(purse.budget)

    def _others_spend(self, account: str) -> bool:
        """Whether calls of living processes may still turn out cheaper than what they hold."""
        self._bury_the_dead()
        holders = self.cache.ledger.holders(account)
        return any(holder != self._holder and not holder.startswith(BATCH_HOLDER) for holder in holders)

    def _bury_the_dead(self) -> None:
        for holder in self.cache.ledger.holders():
            if holder == self._holder or holder.startswith(BATCH_HOLDER) or not self.cache.claim(holder):
                continue
            with self.cache.transaction():
                self.cache.ledger.lose_all(holder)
            self.cache.release(holder)

    def _priced(self, request: Request, answer: Answer, free: bool) -> tuple[Answer, Entry | None]:
        if self._payer is None:
            return answer, None
        purse = self._payer.purse
        amount = 0 if free else purse.price(request, answer.usage, self.by_batch)
        entry = Entry(purse.account, self._payer.annotator, request.model, request.key, amount, answer.usage)
        return replace(answer, price_usd=None if amount is None else usd(amount)), entry

    def _worst_usd(self, request: Request) -> float:
        return usd(self._payer.purse.worst(request, self.by_batch) or 0) if self._payer else 0.0

    def _put_back(self, request: Request) -> None:
        del self._taken[request.key]
        self.cache.release(request.key)
        self._queue.appendleft(request)

    def _found(self, answer: Answer) -> None:
        self.stats.n_cached += 1
        self.stats.saved_usd += answer.price_usd or 0.0

    def _settle(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        del self._taken[key]
        self.cache.release(key)
        self.progress.advance(1)


def ask(
    requests: Sequence[Request],
    judge: Judge | None,
    cache: CallCache,
    stats: CallStats,
    progress: Progress | None = None,
    payer: Payer | None = None,
) -> list[Outcome]:
    """Return the outcome of each request, in order; only what the cache lacks is asked (then there must be a judge).

    Raises:
        AnnotationError: the judge cannot be used; everything it answered before is kept.
        BudgetReachedError: the payer's budget has no room for the next call; likewise.
        StoreError: an answer cannot be kept.
    """
    progress = progress or SilentProgress()
    distinct = {request.key: request for request in requests}
    known = cache.read(distinct)
    stats.n_requests += len(distinct)
    stats.n_cached += len(known)
    stats.saved_usd += sum(answer.price_usd or 0.0 for answer in known.values())
    progress.start("judging", total=len(distinct), unit="calls", done=len(known))
    missing = [request for key, request in distinct.items() if key not in known]
    outcomes: dict[str, Outcome] = dict(known)
    if missing:
        jobs = Jobs(cache, missing, stats, progress, payer)
        assert judge is not None, "an annotator that only plans was asked to judge"
        try:
            if payer is not None:
                _say_estimate(missing, jobs, payer)
            judge.work(jobs)
        finally:
            jobs.release_all()
        outcomes |= jobs.outcomes
    return [outcomes[request.key] for request in requests]


def _say_estimate(missing: Sequence[Request], jobs: Jobs, payer: Payer) -> None:
    by_model: dict[str, list[Request]] = {}
    balance = jobs.balance(payer.purse)
    for request in missing:
        by_model.setdefault(request.model, []).append(request)
    for model, requests in by_model.items():
        with jobs.cache.readable_errors():
            mean = jobs.cache.ledger.mean_price(payer.annotator, model)
        text = payer.purse.estimate(requests, mean, balance)
        if text:
            jobs.progress.say(text)
