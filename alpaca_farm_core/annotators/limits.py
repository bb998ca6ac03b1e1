"""How fast an endpoint may be asked: calls in flight that adapt, and limits per minute.

In: what happened to each try, and the time. Out: how many calls may be in flight, and how long to wait.
Pure: the clock is the caller's. Additive increase and multiplicative decrease as in TCP (Chiu and Jain
1989), with slow start; as servers throttle at random too, a cut needs a share of throttled calls.
"""

from __future__ import annotations

_START = 32
_CUT_SHARE = 0.25
_GAIN = 1.1  # slow start ends when doubling the calls in flight no longer brings so many times the rate
_WINDOW_S = 60.0
_BURST_SHARE = 0.1


class Window:
    """Calls in flight at one endpoint.

    A window is as many ended calls as may be in flight. When a quarter of them was throttled, the limit is
    halved, once for all calls that had begun by then; after a window without that it grows: doubled in
    slow start, then by a sixteenth of the ceiling.

    Args:
        ceiling: Most calls in flight.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = min(_START, ceiling)
        self.in_flight = 0
        self._slow_start = True
        self._era = 0
        self._began = 0.0
        self._rate = 0.0
        self._n_ended = self._n_throttled = 0

    @property
    def n_free(self) -> int:
        """Calls that may begin now."""
        return max(0, self.limit - self.in_flight)

    def begin(self, now: float) -> int:
        """Count a call in; give what is returned to `end`."""
        if not self._began:
            self._began = now
        self.in_flight += 1
        return self._era

    def end(self, era: int, throttled: bool, now: float) -> bool:
        """Count a call out; True when the limit was cut because of it."""
        self.in_flight -= 1
        if era != self._era:
            return False  # begun before the last cut, which has answered it already
        self._n_ended += 1
        self._n_throttled += throttled
        if throttled and self._n_throttled >= _CUT_SHARE * self.limit:
            self.limit = max(1, self.limit // 2)
            self._slow_start = False
            self._era += 1
            self._restart(now)
            return True
        if self._n_ended >= self.limit:
            self._grow(now)
        return False

    def _grow(self, now: float) -> None:
        rate = self._n_ended / max(now - self._began, 1e-9)
        self._slow_start = self._slow_start and rate > _GAIN * self._rate
        step = self.limit if self._slow_start else max(1, self.ceiling // 16)
        self.limit = min(self.ceiling, self.limit + step)
        self._rate = rate
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._began, self._n_ended, self._n_throttled = now, 0, 0


class Pace:
    """At most so much in any minute.

    A bucket that holds a tenth of the limit and refills with the rest of it in a minute: whatever minute is
    looked at, no more than the limit has passed.

    Args:
        per_minute: The limit; 0 = none.
        now: The time.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self._limit = per_minute
        self._burst = max(1.0, _BURST_SHARE * per_minute)
        self._per_second = max(per_minute - self._burst, 0.5 * per_minute) / _WINDOW_S
        self._level = self._burst
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; an amount beyond the bucket passes when the bucket is full."""
        if not self._limit:
            return 0.0
        self._refill(now)
        missing = min(amount, self._burst) - self._level
        return max(0.0, missing / self._per_second)

    def take(self, amount: float, now: float) -> None:
        """Let `amount` pass; what goes beyond the bucket is made up for by waiting afterwards."""
        if self._limit:
            self._refill(now)
            self._level -= amount

    def _refill(self, now: float) -> None:
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
