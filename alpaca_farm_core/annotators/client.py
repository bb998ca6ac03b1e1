"""A judge behind OpenAI-compatible servers.

In: jobs. Out: each settled by an answer (committed) or a failure. One event loop and one connection
pool per run, over all endpoints; retries are ours alone. API keys come from the environment and go
nowhere but into requests. Knows nothing of prompts or labels.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import openai

from alpaca_farm_core.annotators.broker import POLL_S, Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.annotators.completion import read_completion
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.lanes import Lane, Lanes
from alpaca_farm_core.annotators.prices import likely_prompt_tokens, longest_answer
from alpaca_farm_core.annotators.retry import Fault, RetryPolicy, classify
from alpaca_farm_core.annotators.run_sync import run_sync
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import FarmError

_GATHER_S = 0.003  # answers that come within it share one transaction
_RESTING = 4  # calls that may wait before a further try, per call in flight


@dataclass(frozen=True)
class Exchange:
    """What is sent for a request, and how the reply is read.

    Attributes:
        path: Path below the endpoint's URL, or a whole URL.
        body: (request, model name at this endpoint) → JSON body.
        read: JSON reply → answer; raises BodyError for anything else.
    """

    path: str
    body: Callable[[Request, str], Mapping[str, Any]]
    read: Callable[[object], Answer]


def _chat_body(request: Request, model: str) -> Mapping[str, Any]:
    return {"model": model, "messages": list(request.messages), **request.sampling}


CHAT = Exchange("/chat/completions", _chat_body, read_completion)


class ApiJudge:
    """Answers jobs by chat completions, or by another exchange with the same retries and failures.

    Args:
        endpoints: Where to ask; several share the calls.
        concurrency: Most calls in flight at once, per endpoint without a limit of its own.
        policy: Bounds of trying again.
        exchange: What is sent and how the reply is read.
    """

    def __init__(
        self,
        endpoints: Endpoint | Sequence[Endpoint],
        concurrency: int = 64,
        policy: RetryPolicy | None = None,
        exchange: Exchange = CHAT,
    ) -> None:
        self._exchange = exchange
        self._endpoints = (endpoints,) if isinstance(endpoints, Endpoint) else tuple(endpoints)
        self._concurrency = concurrency
        self._policy = policy or RetryPolicy()

    @classmethod
    def of(cls, execution: ExecutionConfig) -> ApiJudge:
        """Build the judge that the settings describe.

        Raises:
            ConfigError: an endpoint is no HTTP address.
        """
        timeout_s = execution.call_timeout_seconds
        policy = RetryPolicy(timeout_s=timeout_s, deadline_s=max(RetryPolicy.deadline_s, 5 * timeout_s))
        return cls(Endpoint.all_of(execution), execution.concurrency, policy)

    def work(self, jobs: Jobs) -> None:
        """Settle all jobs; blocks, also under a running event loop.

        Raises:
            AnnotationError: the server refuses for good, or does not answer at all. Calls in flight
                are let finish first, as they may be paid for.
            BudgetReachedError: the next call does not fit the budget; likewise.
        """
        keys = [endpoint.api_key() for endpoint in self._endpoints]
        run_sync(lambda: self._work(jobs, keys))

    async def _work(self, jobs: Jobs, keys: Sequence[str]) -> None:
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(connection_pool())
            lanes = [
                Lane(endpoint, open_client(endpoint, key, pool), self._concurrency)
                for endpoint, key in zip(self._endpoints, keys, strict=True)
            ]
            crew = _Crew(jobs, Lanes(lanes), self._policy, self._exchange)
            try:
                await crew.work()
            finally:
                jobs.close_thread()
        if crew.error is not None:
            raise crew.error


def connection_pool() -> openai.DefaultAioHttpClient:
    """Connections for all endpoints together; how many calls are in flight is not the pool's business.

    Over aiohttp a call takes a quarter of the processor time that httpx's own transport takes: that one looks
    through all its connections for each call.
    """
    no_limit = type(openai.DEFAULT_CONNECTION_LIMITS)(max_connections=0)  # aiohttp's word for none
    return openai.DefaultAioHttpClient(limits=no_limit)


def open_client(endpoint: Endpoint, key: str, pool: openai.DefaultAioHttpClient) -> openai.AsyncOpenAI:
    """Make the client of one endpoint over a shared pool."""
    if endpoint.api_version:
        return openai.AsyncAzureOpenAI(
            api_key=key, base_url=endpoint.url, api_version=endpoint.api_version, max_retries=0, http_client=pool
        )
    return openai.AsyncOpenAI(api_key=key, base_url=endpoint.url, max_retries=0, http_client=pool)


class _Crew:
    """Calls under way, what they have in common, and the reason why they stopped early."""

    def __init__(self, jobs: Jobs, lanes: Lanes, policy: RetryPolicy, exchange: Exchange) -> None:
        self._exchange = exchange
        self.error: FarmError | None = None
        self._jobs = jobs
        self._lanes = lanes
        self._policy = policy
        self._stopped = asyncio.Event()
        self._news = asyncio.Event()
        self._answers: dict[str, Answer] = {}
        self._free: set[str] = set()  # keys of answers that no money is asked for
        self._random = Random()  # jitter only: never changes an answer
        self._reached = False
        self._given_up_in_a_row = 0
        self._n_under_way = 0

    async def work(self) -> None:
        """Take and settle jobs until none is left or the crew was stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self._stopped.is_set() and (len(self._jobs) or self._n_under_way):
                    self._news.clear()
                    for request in self._take():
                        self._n_under_way += 1
                        group.create_task(self._do(request))
                    await self._wait_for_news()
        finally:
            self._commit()

    def _take(self) -> list[Request]:
        room = min(self._lanes.n_free, self._most_under_way() - self._n_under_way)
        try:
            return self._jobs.take(room) if room > 0 and len(self._jobs) else []
        except FarmError as error:
            self._stop(error)
            return []

    def _most_under_way(self) -> int:
        """Calls in flight or resting; before the first answer no more than show whether there will be any."""
        answered = any(lane.answered for lane in self._lanes.lanes)
        return _RESTING * self._lanes.ceiling if answered else max(self._lanes.ceiling, self._policy.stop_after)

    async def _wait_for_news(self) -> None:
        """Wait until a call has ended; also look again soon, as other processes may have given up theirs."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._news.wait()
            await asyncio.sleep(_GATHER_S)  # what ends together is followed up together
        except TimeoutError:
            return

    async def _do(self, request: Request) -> None:
        try:
            result = await self._call(request)
            if isinstance(result, Answer):
                self._given_up_in_a_row = 0
                self._keep(request, result)
                return  # under way until it is committed
            if result is not None:
                self._jobs.fail(request, _reason(result), paid=result.maybe_paid)
                self._give_up(result, request)
        except FarmError as error:
            self._stop(error)
        self._n_under_way -= 1
        self._news.set()

    async def _call(self, request: Request) -> Answer | Fault | None:
        """Try until there is an answer, or the fault that ended the trying; None when the job was put back.

        Raises:
            AnnotationError: every further call would be refused alike.
        """
        tokens = likely_prompt_tokens(request) + (longest_answer(request) or 0)
        loop, began, attempt = asyncio.get_running_loop(), 0.0, 0
        failed_on: set[Lane] = set()
        while True:
            attempt += 1
            turn = await self._lanes.begin(tokens, failed_on)
            if turn is None:
                self._jobs.put_back(request)
                return None
            began = began or loop.time()
            result = await self._try(turn.lane, request)
            fault = result if isinstance(result, Fault) else None
            self._lanes.end(turn, fault)
            if fault is None:
                return result
            self._jobs.stats.faults[fault.group] += 1
            if fault.kind == "permanent" or (fault.kind == "bad" and not turn.lane.answered):
                self._jobs.fail(request, fault.what)
                raise turn.lane.endpoint.explain(fault, request.model)
            if fault.kind == "refused":
                words = turn.lane.endpoint.redact(fault.message)
                self._free.add(request.key)
                return Answer("", finish_reason="content_filter", refusal=words or "refused")
            if fault.kind != "transient":
                return fault
            self._note(turn.lane, fault)
            failed_on.add(turn.lane)
            if self._lanes.others(failed_on):
                fault = replace(fault, retry_after_s=None)  # another endpoint may be asked at once
            else:
                failed_on.clear()
            pause = self._policy.delay_s(1 if turn.lane.healthy else attempt, fault, self._random)
            tries = self._policy.tries if self._reached else self._policy.tries_unreached
            if attempt >= tries or loop.time() - began + pause > self._policy.deadline_s:
                return fault
            if await self._stopped_within(pause):
                return fault
            if fault.maybe_paid and not self._jobs.try_again(request):
                return None

    async def _try(self, lane: Lane, request: Request) -> Answer | Fault:
        """One HTTP exchange; the body is read as plain JSON, which a damaged one does not survive."""
        model = lane.endpoint.models.get(request.model, request.model)
        body = dict(self._exchange.body(request, model))
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                read = await lane.client.post(self._exchange.path, cast_to=object, body=body)
            answer = self._exchange.read(json.loads(read) if isinstance(read, str) else read)  # JSON under another name
            self._reached = lane.answered = True
            return answer
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            fault = classify(error)
        self._reached |= fault.what != "connection"
        return fault

    def _keep(self, request: Request, answer: Answer) -> None:
        """Commit an answer, together with those that come right after it."""
        if not self._answers:
            asyncio.get_running_loop().call_later(_GATHER_S, self._commit)
        self._answers[request.key] = answer

    def _commit(self) -> None:
        answers, self._answers = self._answers, {}
        if not answers:
            return
        try:
            self._jobs.commit({key: answer for key, answer in answers.items() if key not in self._free})
            self._jobs.commit({key: answer for key, answer in answers.items() if key in self._free}, free=True)
        except FarmError as error:
            self._stop(error)
        finally:
            self._n_under_way -= len(answers)
            self._news.set()

    def _note(self, lane: Lane, fault: Fault) -> None:
        if not self._jobs.stats.retries[fault.what]:
            self._jobs.progress.say(f"{lane.endpoint.name}: {fault.what}; such calls are tried again")
        self._jobs.stats.retries[fault.what] += 1

    def _give_up(self, fault: Fault, request: Request) -> None:
        """Count calls given up; many in a row mean that the server is gone, not that a call was unlucky."""
        if fault.kind == "too_long":
            return
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= self._policy.stop_after:
            self._stop(self._lanes.lanes[0].endpoint.explain(fault, request.model))

    def _stop(self, error: FarmError) -> None:
        self.error = self.error or error
        self._stopped.set()
        self._lanes.close()
        self._news.set()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True


def _reason(fault: Fault) -> str:
    return "too long for the model's context" if fault.kind == "too_long" else fault.what
