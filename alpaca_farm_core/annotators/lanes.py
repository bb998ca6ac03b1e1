"""Endpoints side by side: which one takes the next try, and when.

In: tries that wait, each with its tokens. Out: a lane (an endpoint with its client) to each, first come
first served: the least filled of those that the call has not failed on. Lives in one event loop; knows
nothing of answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import openai

from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.limits import Pace, Window
from alpaca_farm_core.annotators.retry import Fault

_NEVER = float("inf")
_MIN_TIMER_S = 0.001
_HEALTHY_SHARE = 0.25  # as many faults may come by chance while the server is well
_MEMORY = 16  # tries that the share of faults looks back on


class Lane:
    """One endpoint: its client, its calls in flight and its limits per minute."""

    def __init__(self, endpoint: Endpoint, client: openai.AsyncOpenAI, concurrency: int) -> None:
        now = asyncio.get_running_loop().time()
        self.endpoint = endpoint
        self.client = client
        self.window = Window(endpoint.concurrency or concurrency)
        self.answered = False
        self._requests = Pace(endpoint.requests_per_minute, now)
        self._tokens = Pace(endpoint.tokens_per_minute, now)
        self._closed_until = 0.0
        self._faulty = 1.0

    @property
    def healthy(self) -> bool:
        """Whether nearly all of its latest tries were answered; not before the first ones were."""
        return self._faulty < _HEALTHY_SHARE

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a try may begin; infinite while too many calls are in flight."""
        if not self.window.n_free:
            return _NEVER
        return max(self._closed_until - now, self._requests.wait_s(1, now), self._tokens.wait_s(tokens, now), 0.0)

    def begin(self, tokens: int, now: float) -> int:
        """Count a try in."""
        self._requests.take(1, now)
        self._tokens.take(tokens, now)
        return self.window.begin(now)

    def end(self, era: int, fault: Fault | None, now: float) -> None:
        """Count a try out; when many were throttled, keep the lane closed as long as the server asked for."""
        cut = self.window.end(era, fault is not None and fault.overloaded, now)
        self._faulty += ((fault is not None and fault.kind == "transient") - self._faulty) / _MEMORY
        if cut and fault is not None and fault.retry_after_s:
            self._closed_until = max(self._closed_until, now + fault.retry_after_s)


@dataclass(frozen=True)
class Turn:
    """A try that may begin: on which lane, and in which era of its window."""

    lane: Lane
    era: int


@dataclass
class Lanes:
    """All endpoints of a run."""

    lanes: list[Lane]
    _waiting: deque[tuple[asyncio.Future[Turn | None], int, Collection[Lane]]] = field(default_factory=deque)
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    @property
    def n_free(self) -> int:
        """Tries that may begin now, beyond those that wait already."""
        return sum(lane.window.n_free for lane in self.lanes) - len(self._waiting)

    @property
    def ceiling(self) -> int:
        """Most tries in flight."""
        return sum(lane.window.ceiling for lane in self.lanes)

    async def begin(self, tokens: int, avoid: Collection[Lane] = ()) -> Turn | None:
        """Wait for a turn, on a lane that is not one to `avoid` if there is any; None when there will be none."""
        if self._closed:
            return None
        future: asyncio.Future[Turn | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, tokens, avoid))
        self._serve()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (turn := future.result()) is not None:
                self.end(turn, None)
            raise

    def close(self) -> None:
        """Give no further turns; those who wait are told."""
        self._closed = True
        for future, *_ in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()
        self._wake_in(_NEVER)

    def end(self, turn: Turn, fault: Fault | None) -> None:
        """Give a turn back."""
        turn.lane.end(turn.era, fault, asyncio.get_running_loop().time())
        self._serve()

    def others(self, avoid: Collection[Lane]) -> list[Lane]:
        """Return the lanes besides those to avoid."""
        return [lane for lane in self.lanes if lane not in avoid]

    def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            future, tokens, avoid = self._waiting[0]
            if not future.done():
                now = loop.time()
                wait, lane = min(
                    ((lane.wait_s(tokens, now), lane) for lane in self.others(avoid) or self.lanes),
                    key=lambda found: (found[0], found[1].window.in_flight / found[1].window.limit),
                )
                if wait > 0:
                    self._wake_in(wait)
                    return
                future.set_result(Turn(lane, lane.begin(tokens, now)))
            self._waiting.popleft()

    def _wake_in(self, wait: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wait < _NEVER:
            self._timer = asyncio.get_running_loop().call_later(max(wait, _MIN_TIMER_S), self._serve)
