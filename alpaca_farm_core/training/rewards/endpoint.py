"""An HTTP endpoint as reward: one JSON object per answer out, one number back.

The endpoint gets `{"instruction", "input", "output", "finished"}` by POST and replies `{"reward": number}`.
Retries, limits and failures are those of annotation calls. A key, if it wants one, is read from
REWARD_API_KEY and sent as a bearer token.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.annotators.client import ApiJudge, Exchange
from alpaca_farm_core.annotators.endpoint import Endpoint
from alpaca_farm_core.annotators.retry import BodyError, Fault, RetryPolicy
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import AnnotationError, ConfigError


class RewardEndpoint(Endpoint):
    """Where rewards are served; `url` is the address that answers are posted to."""

    @classmethod
    def find(cls, base_url: str = "") -> RewardEndpoint:
        """Take the address of `execution.reward_url`.

        Raises:
            ConfigError: none is set, or it is not an http(s) URL.
        """
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(
                f"'{base_url}' is not an HTTP address to post answers to.",
                "Set execution.reward_url, for example to http://127.0.0.1:9000/reward.",
            )
        return cls(base_url, key_variable="REWARD_API_KEY")

    def api_key(self) -> str:
        """The key from the environment; "none" when there is none."""
        return os.environ.get(self.key_variable, "").strip() or "none"

    def explain(self, fault: Fault, model: str) -> AnnotationError:
        """Say what happened; the run can go on from its last checkpoint."""
        return AnnotationError(
            f"The reward endpoint {self.url} gives no rewards ({fault.what}): {self.redact(fault.message)}",
            f"See that it is up, that execution.reward_url is right, and that {self.key_variable} is set if it wants a "
            "key; then run again: rewards so far are kept and the run resumes from its last checkpoint.",
        )


class EndpointJudge(ApiJudge):
    """Answers the broker's jobs by posting them to the endpoint."""

    def __init__(self, name: str, execution: ExecutionConfig) -> None:
        endpoint = RewardEndpoint.find(execution.reward_url)
        timeout_s = execution.call_timeout_seconds
        policy = RetryPolicy(timeout_s=timeout_s, deadline_s=max(RetryPolicy.deadline_s, 5 * timeout_s))
        super().__init__(endpoint, execution.concurrency, policy, Exchange(endpoint.url, _body, read_reward))
        self.source = f"endpoint {name}"


def _body(request: Request, model: str) -> Mapping[str, Any]:
    row: Mapping[str, Any] = json.loads(request.messages[0]["content"])
    return row


def read_reward(body: object) -> Answer:
    """Read the JSON body of a reply.

    Raises:
        BodyError: it holds no finite number as `reward`.
    """
    reward = body.get("reward") if isinstance(body, Mapping) else None
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward):
        raise BodyError(f"no finite number as 'reward' in {str(body)[:100]!r}")
    return Answer(json.dumps(float(reward)), finish_reason="stop")
