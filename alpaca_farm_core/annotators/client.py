"""A judge behind any OpenAI-compatible server.

In: jobs. Out: each settled by an answer (committed) or a failure. One event loop, one connection pool
and `concurrency` workers per run; retries are ours alone. The API key comes from the environment and
goes nowhere but into the request. Knows nothing of prompts or labels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import openai

from alpaca_farm_core.annotators.broker import POLL_S, Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.retry import BodyError, Fault, RetryPolicy, classify
from alpaca_farm_core.annotators.run_sync import run_sync
from alpaca_farm_core.errors import FarmError


@dataclass(frozen=True)
class Exchange:
    """What is sent for a request, and how the reply is read.

    Attributes:
        path: Path below the endpoint's URL, or a whole URL.
        body: Request → JSON body.
        read: JSON reply → answer; raises BodyError for anything else.
    """

    path: str
    body: Callable[[Request], Mapping[str, Any]]
    read: Callable[[object], Answer]


class ApiJudge:
    """Answers jobs by chat completions, or by another exchange with the same retries and failures.

    Args:
        endpoint: Where to ask.
        concurrency: Calls in flight at once.
        policy: Bounds of trying again.
        exchange: What is sent and how the reply is read; None = a chat completion.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        concurrency: int = 16,
        policy: RetryPolicy | None = None,
        exchange: Exchange | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._policy = policy or RetryPolicy()
        self._exchange = exchange or CHAT

    def work(self, jobs: Jobs) -> None:
        """Settle all jobs; blocks, also under a running event loop.

        Raises:
            AnnotationError: the server refuses for good, or does not answer at all. Calls in flight
                are let finish first, as they may be paid for.
        """
        key = self._endpoint.api_key()
        run_sync(lambda: self._work(jobs, key))

    async def _work(self, jobs: Jobs, key: str) -> None:
        async with openai.AsyncOpenAI(api_key=key, base_url=self._endpoint.url, max_retries=0) as client:
            crew = _Crew(client, jobs, self._endpoint, self._policy, self._exchange)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._concurrency, len(jobs))):
                        group.create_task(crew.work())
            finally:
                jobs.close_thread()
        if crew.error is not None:
            raise crew.error


class _Crew:
    """Workers that share a client, and the reason why they stopped early."""

    def __init__(
        self, client: openai.AsyncOpenAI, jobs: Jobs, endpoint: Endpoint, policy: RetryPolicy, exchange: Exchange
    ) -> None:
        self.error: FarmError | None = None
        self._client = client
        self._jobs = jobs
        self._endpoint = endpoint
        self._policy = policy
        self._exchange = exchange
        self._stopped = asyncio.Event()
        self._random = Random()  # jitter only: never changes an answer
        self._reached = False
        self._given_up_in_a_row = 0

    async def work(self) -> None:
        """Take and settle jobs until none is left or the crew was stopped."""
        while not self._stopped.is_set():
            taken = self._jobs.take()
            if taken:
                await self._do(taken[0])
            elif len(self._jobs):
                await asyncio.sleep(POLL_S)
            else:
                return

    async def _do(self, request: Request) -> None:
        try:
            result = await self._call(request)
            if isinstance(result, Answer):
                self._given_up_in_a_row = 0
                self._jobs.commit({request.key: result})
            else:
                self._jobs.fail(request, result.what)
                self._give_up(result)
        except FarmError as error:
            self._stop(error)

    async def _call(self, request: Request) -> Answer | Fault:
        """Try until there is an answer, or the fault that ended the trying."""
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                async with asyncio.timeout(self._policy.timeout_s):
                    body = await self._post(request)
                self._reached = True
                return self._exchange.read(body)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                fault = classify(error)
            self._reached |= fault.what != "connection"
            if fault.kind == "permanent":
                raise self._endpoint.explain(fault, request.model)
            if fault.kind == "refused":
                return Answer("", finish_reason="content_filter", refusal=self._endpoint.redact(fault.message))
            if fault.kind == "too_long":
                return fault
            self._note(fault)
            pause = self._policy.delay_s(attempt, fault, self._random)
            tries = self._policy.tries if self._reached else self._policy.tries_unreached
            if attempt >= tries or time.monotonic() - began + pause > self._policy.deadline_s:
                return fault
            if await self._stopped_within(pause):
                return fault

    async def _post(self, request: Request) -> object:
        """One HTTP exchange; the body is read as plain JSON, which a damaged one does not survive."""
        return await self._client.post(self._exchange.path, cast_to=object, body=dict(self._exchange.body(request)))

    def _note(self, fault: Fault) -> None:
        if not self._jobs.stats.retries[fault.what]:
            self._jobs.progress.say(f"{self._endpoint.name}: {fault.what}; such calls are tried again")
        self._jobs.stats.retries[fault.what] += 1

    def _give_up(self, fault: Fault) -> None:
        """Count calls given up; many in a row mean that the server is gone, not that a call was unlucky."""
        if fault.kind == "too_long":
            return
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= self._policy.stop_after:
            self._stop(self._endpoint.explain(fault, ""))

    def _stop(self, error: FarmError) -> None:
        self.error = self.error or error
        self._stopped.set()

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return False
        return True


def read_completion(body: object) -> Answer:
    """Read the JSON body of a chat completion.

    Raises:
        BodyError: it is something else (an HTML page, an error with status 200, half a body).
    """
    try:
        choice = _mapping(_mapping(body)["choices"][0])
        message = _mapping(choice["message"])
        return Answer(
            text=_clean(message.get("content")),
            finish_reason=str(choice.get("finish_reason") or ""),
            usage=dict(_mapping(_mapping(body).get("usage") or {})),
            model=str(_mapping(body).get("model") or ""),
            fingerprint=str(_mapping(body).get("system_fingerprint") or ""),
            refusal=_clean(message.get("refusal")),
            logprobs=choice.get("logprobs"),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise BodyError(f"no chat completion in the body: {type(error).__name__} {error}") from None


def _chat_body(request: Request) -> Mapping[str, Any]:
    return {"model": request.model, "messages": list(request.messages), **request.sampling}


CHAT = Exchange("/chat/completions", _chat_body, read_completion)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _clean(text: Any) -> str:
    """Text as valid Unicode (a lone surrogate cannot be written to a file)."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}")
    return (text or "").encode("utf-8", "replace").decode("utf-8")
