"""A judge behind a provider's Batch API: about half the price, answers within a day.

In: jobs. Out: each settled, by the batch or, where the batch gave no answer to it, by a call of its own.
A batch is written down before it is sent, so that a killed run waits for it instead of paying again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alpaca_farm_core.annotators.batch_client import BatchClient
from alpaca_farm_core.annotators.batch_records import BatchRecord, BatchRecords
from alpaca_farm_core.annotators.broker import Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.annotators.client import ApiJudge
from alpaca_farm_core.annotators.completion import read_completion
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.retry import BodyError, RetryPolicy, classify_error_body
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError

_DONE = ("completed", "failed", "expired", "cancelled")
_MAX_CALLS = 50_000
_MAX_BYTES = 190_000_000
_COMMIT = 1000


class BatchJudge:
    """Answers jobs by batches.

    Args:
        endpoint: Where to send them.
        direct: Asks what a batch left unanswered.
        policy: Bounds of trying again.
        poll_s: Pause between two looks at a batch.
    """

    def __init__(
        self, endpoint: Endpoint, direct: ApiJudge, policy: RetryPolicy | None = None, poll_s: float = 30.0
    ) -> None:
        self._endpoint = endpoint
        self._direct = direct
        self._policy = policy or RetryPolicy()
        self._poll_s = poll_s

    @classmethod
    def of(cls, execution: ExecutionConfig) -> BatchJudge:
        """Build the judge that the settings describe; of several endpoints the first takes the batches.

        Raises:
            ConfigError: an endpoint is no HTTP address.
        """
        policy = RetryPolicy(timeout_s=execution.call_timeout_seconds)
        return cls(Endpoint.all_of(execution)[0], ApiJudge.of(execution), policy, execution.batch_poll_seconds)

    def work(self, jobs: Jobs) -> None:
        """Settle all jobs; blocks until the batches are done.

        Raises:
            AnnotationError: the provider refuses a batch. Batches under way go on; run again to collect them.
            BudgetReachedError: no further call fits the budget; likewise.
        """
        client = BatchClient(self._endpoint, self._policy)
        left: list[Request] = []
        jobs.by_batch = True
        try:
            while taken := jobs.take(_MAX_CALLS):
                left += _Round(client, jobs, self._endpoint, self._poll_s).settle(taken)
        finally:
            jobs.by_batch = False
            client.close()
        for request in reversed(left):
            jobs.put_back(request)
        if len(jobs):  # put back by a batch, or being made elsewhere
            self._direct.work(jobs)


class _Round:
    """One set of taken jobs, from finding or sending their batches to their answers."""

    def __init__(self, client: BatchClient, jobs: Jobs, endpoint: Endpoint, poll_s: float) -> None:
        self._client = client
        self._jobs = jobs
        self._endpoint = endpoint
        self._poll_s = poll_s
        self._records = BatchRecords(jobs.cache.folder / "batches")
        self._left: list[Request] = []

    def settle(self, taken: Sequence[Request]) -> list[Request]:
        """Find batches that are under way, send the rest, wait, settle; return what needs a call of its own."""
        requests = {request.key: request for request in taken}
        under_way = self._find(requests)
        found = {key for record in under_way for key in record.keys}
        under_way += [self._send(chunk) for chunk in self._chunks(r for r in taken if r.key not in found)]
        while under_way:
            done = [(record, batch) for record in under_way if (batch := self._look(record)) is not None]
            for record, batch in done:
                self._collect(record, batch, requests)
                under_way.remove(record)
            if under_way:
                time.sleep(self._poll_s)
        return self._left

    def _find(self, requests: Mapping[str, Request]) -> list[BatchRecord]:
        """Return batches under way that hold some of our jobs."""
        found = []
        for record in self._records.pending(self._endpoint.url):
            if not requests.keys() & set(record.keys):
                continue
            batch_id = record.batch_id or self._client.find(record.token)
            if batch_id:
                self._jobs.progress.say(f"{self._endpoint.name}: going on with batch {batch_id}")
                found.append(record.with_id(batch_id))
            else:  # killed before it was sent
                self._records.remove([record])
        return found

    def _chunks(self, requests: Iterator[Request]) -> Iterator[list[tuple[Request, bytes]]]:
        chunk: list[tuple[Request, bytes]] = []
        size = 0
        for request in requests:
            line = self._client.line(request)
            if chunk and (len(chunk) == _MAX_CALLS or size + len(line) > _MAX_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append((request, line))
            size += len(line)
        if chunk:
            yield chunk

    def _send(self, chunk: Sequence[tuple[Request, bytes]]) -> BatchRecord:
        keys = tuple(request.key for request, _ in chunk)
        record = BatchRecord(uuid.uuid4().hex, self._endpoint.url, keys)
        self._records.write(record)
        self._jobs.pass_on(keys, record.token)
        try:
            record = record.with_id(self._client.submit(record.token, (line for _, line in chunk)))
        except AnnotationError:
            self._records.remove([record])
            for request, _ in chunk:
                self._jobs.put_back(request)
            raise
        self._records.write(record)
        self._jobs.progress.say(f"{self._endpoint.name}: batch {record.batch_id} of {len(keys)} calls is under way")
        return record

    def _look(self, record: BatchRecord) -> Mapping[str, Any] | None:
        batch = self._client.look(record.batch_id)
        return batch if batch.get("status") in _DONE else None

    def _collect(self, record: BatchRecord, batch: Mapping[str, Any], requests: Mapping[str, Request]) -> None:
        results = self._client.results(batch)
        if batch["status"] == "failed" and not results:
            self._refuse(record, batch, requests)
        answers: dict[str, Answer] = {}
        for key in record.keys:
            if key not in requests:
                continue
            answer = self._read(requests[key], results.get(key))
            if answer is not None:
                answers[key] = answer
            if len(answers) == _COMMIT:
                self._jobs.commit(answers)
                answers = {}
        self._jobs.commit(answers)
        others = [key for key in record.keys if key not in requests]  # of another run, or collected before a kill
        if len(self._jobs.cache.read(others)) == len(others):
            self._records.remove([record])

    def _read(self, request: Request, row: Mapping[str, Any] | None) -> Answer | None:
        """Return a call's answer, or None when it is settled otherwise or left for a call of its own."""
        response = (row or {}).get("response") or {}
        if response.get("status_code") == 200:
            try:
                return read_completion(response.get("body"))
            except BodyError:
                self._left.append(request)
                return None
        fault = classify_error_body(response.get("status_code"), response.get("body"))
        if fault is not None and fault.kind == "refused":
            words = self._endpoint.redact(fault.message) or "refused"
            self._jobs.commit({request.key: Answer("", finish_reason="content_filter", refusal=words)}, free=True)
        elif fault is not None and fault.kind == "too_long":
            self._jobs.fail(request, "too long for the model's context")
        else:
            self._left.append(request)
        return None

    def _refuse(self, record: BatchRecord, batch: Mapping[str, Any], requests: Mapping[str, Request]) -> None:
        self._records.remove([record])
        for key in record.keys:
            if key in requests:
                self._jobs.put_back(requests[key])
        errors = ((batch.get("errors") or {}).get("data") or [{}])[0]
        raise AnnotationError(
            f"{self._endpoint.name} refused the batch {record.batch_id}: "
            f"{self._endpoint.redact(str(errors.get('message') or 'no reason given'))}",
            "Check the model's name and that the account may use the Batch API, or set execution.batch_api=false. "
            "Answers so far are kept.",
        )
