"""The provider's side of batches: files up, batches made and looked at, files down.

In: requests. Out: for each call key its result line. Transient faults are tried again within bounds;
everything else is raised in words. Knows nothing of jobs, records or money.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, TypeVar

import openai

from alpaca_farm_core.annotators.calls import Request
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.retry import Fault, RetryPolicy, classify
from alpaca_farm_core.artifacts.files import canonical_json

T = TypeVar("T")
TOKEN_KEY = "alpaca_farm_batch"
_ROUTE = "/v1/chat/completions"
_PAGES = 20


class BatchClient:
    """Batches at one endpoint.

    Args:
        endpoint: Where.
        policy: Bounds of trying again.
    """

    def __init__(self, endpoint: Endpoint, policy: RetryPolicy) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._client = openai.OpenAI(
            api_key=endpoint.api_key(), base_url=endpoint.url, max_retries=0, timeout=policy.timeout_s
        )
        self._random = Random()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def line(self, request: Request) -> bytes:
        """Return a request as a line of a batch's input file."""
        model = self._endpoint.models.get(request.model, request.model)
        body = {"model": model, "messages": list(request.messages), **request.sampling}
        line = {"custom_id": request.key, "method": "POST", "url": _ROUTE, "body": body}
        return canonical_json(line).encode() + b"\n"

    def submit(self, token: str, lines: Iterable[bytes]) -> str:
        """Send a batch under our token; return the provider's id."""
        content = b"".join(lines)
        file = self._try(lambda: self._client.files.create(file=(f"{token}.jsonl", content), purpose="batch"))
        body = {
            "input_file_id": file.id,
            "endpoint": _ROUTE,
            "completion_window": "24h",
            "metadata": {TOKEN_KEY: token},
        }
        # Not tried again blindly: a batch made twice is paid for twice.
        try:
            return str(self._read(self._client.post("/batches", cast_to=object, body=body))["id"])
        except (openai.OpenAIError, ValueError) as error:
            fault = classify(error)
            found = self.find(token) if fault.maybe_paid else ""
            if not found:
                raise self._endpoint.explain(fault, "the Batch API") from None
            return found

    def find(self, token: str) -> str:
        """Return the id of the batch that was sent under our token; "" when there is none."""
        after = ""
        for _ in range(_PAGES):
            query = f"?limit=100&after={after}" if after else "?limit=100"
            page = self._read(self._get(f"/batches{query}"))
            batches: Sequence[Mapping[str, Any]] = page.get("data") or []
            for batch in batches:
                if (batch.get("metadata") or {}).get(TOKEN_KEY) == token:
                    return str(batch["id"])
            if not page.get("has_more") or not batches:
                break
            after = str(batches[-1]["id"])
        return ""

    def look(self, batch_id: str) -> Mapping[str, Any]:
        """Return the provider's description of a batch."""
        return self._read(self._get(f"/batches/{batch_id}"))

    def results(self, batch: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Return the result line of each call that has one, from the output and the error file."""
        found: dict[str, Mapping[str, Any]] = {}
        for name in ("error_file_id", "output_file_id"):
            if not batch.get(name):
                continue
            for line in self._download(str(batch[name])).splitlines():
                row = _row(line)
                if row is not None:
                    found[str(row["custom_id"])] = row
        return found

    def _download(self, file: str) -> bytes:
        return self._try(lambda: self._client.files.content(file).content)

    def _get(self, path: str) -> object:
        return self._try(lambda: self._client.get(path, cast_to=object))

    def _try(self, call: Callable[[], T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                return call()
            except (openai.OpenAIError, ValueError) as error:
                fault = classify(error)
            if fault.kind != "transient" or attempt >= self._policy.tries:
                raise self._endpoint.explain(fault, "the Batch API") from None
            time.sleep(self._policy.delay_s(attempt, fault, self._random))

    def _read(self, answer: object) -> Mapping[str, Any]:
        if isinstance(answer, Mapping):
            return answer
        raise self._endpoint.explain(Fault("transient", "body", f"no batch in {str(answer)[:80]!r}"), "the Batch API")


def _row(line: bytes) -> Mapping[str, Any] | None:
    """Read a result line; None for a damaged one, whose call is then asked for by itself."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "custom_id" in row else None
