"""Between annotators and judges: each distinct question is asked once, and kept before it is used.

In: requests, in any number and with repeats. Out: one outcome per request, in order. The cache is
read first; what is missing is handed out call by call, each to one worker of one process at a time;
an answer is committed before anybody sees it. Knows neither prompts nor HTTP.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from alpaca_farm_core.annotators.cache import CallCache
from alpaca_farm_core.annotators.calls import Answer, CallStats, Failure, Outcome, Request
from alpaca_farm_core.pipeline.progress import Progress, SilentProgress

POLL_S = 0.05


class Judge(Protocol):
    """Whatever can answer requests: an API, the gold utility, a batch endpoint, a local model."""

    def work(self, jobs: Jobs) -> None:
        """Take jobs until none is left, and settle each by `commit` or `fail`.

        Raises:
            AnnotationError: the judge cannot be used at all; what was committed stays.
        """


class Jobs:
    """Calls still to be made, for one judge in one thread.

    A job that another thread or process is making waits at the end of the queue: its answer is taken
    from the cache when it is there, and the call is ours when its maker gave up or died.
    """

    def __init__(self, cache: CallCache, requests: Sequence[Request], stats: CallStats, progress: Progress) -> None:
        self._cache = cache
        self._queue = deque(requests)
        self._taken: dict[str, Request] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.stats = stats
        self.progress = progress

    def __len__(self) -> int:
        """Jobs not taken yet; when `take` gave none, all of them are being made elsewhere."""
        return len(self._queue)

    def take(self, n: int = 1) -> list[Request]:
        """Claim up to `n` jobs; [] when none is left or all are being made elsewhere (wait POLL_S)."""
        ready: list[Request] = []
        for _ in range(len(self._queue)):
            if len(ready) == n:
                break
            request = self._queue.popleft()
            if not self._cache.claim(request.key):
                self._queue.append(request)
                continue
            self._taken[request.key] = request
            known = self._cache.read([request.key])
            if known:  # answered elsewhere since the first look
                self.stats.n_cached += 1
                self._settle(request.key, known[request.key])
            else:
                ready.append(request)
        return ready

    def commit(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers to taken jobs (one transaction), with the time, then let them be used."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        answers = {key: replace(answer, answered_at=answer.answered_at or now) for key, answer in answers.items()}
        self._cache.commit(answers)
        self.stats.n_called += len(answers)
        for key, answer in answers.items():
            self._settle(key, answer)

    def fail(self, request: Request, reason: str) -> None:
        """Settle a taken job without an answer: counted, not kept, asked again by the next run."""
        self.stats.n_failed += 1
        self._settle(request.key, Failure(reason))

    def release_all(self) -> None:
        """Give back the claims of jobs that were taken but not settled."""
        for key in self._taken:
            self._cache.release(key)
        self._taken.clear()

    def close_thread(self) -> None:
        """Close the calling thread's cache connection."""
        self._cache.close()

    def _settle(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        del self._taken[key]
        self._cache.release(key)
        self.progress.advance(1)


def ask(
    requests: Sequence[Request], judge: Judge, cache: CallCache, stats: CallStats, progress: Progress | None = None
) -> list[Outcome]:
    """Return the outcome of each request, in order; only what the cache lacks is asked.

    Raises:
        AnnotationError: the judge cannot be used; everything it answered before is kept.
        StoreError: an answer cannot be kept.
    """
    progress = progress or SilentProgress()
    distinct = {request.key: request for request in requests}
    known = cache.read(distinct)
    stats.n_requests += len(distinct)
    stats.n_cached += len(known)
    progress.start("judging", total=len(distinct), unit="calls", done=len(known))
    jobs = Jobs(cache, [request for key, request in distinct.items() if key not in known], stats, progress)
    if len(jobs):
        try:
            judge.work(jobs)
        finally:
            jobs.release_all()
    outcomes = known | jobs.outcomes
    return [outcomes[request.key] for request in requests]
