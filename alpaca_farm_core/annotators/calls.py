"""One question to a judge and what came of it; the identity under which an answer is kept.

In: a model name, sampling parameters and messages. Out: a key that is the same on every machine and
for every endpoint that serves the model. Knows nothing of HTTP, of disks, or of what is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from alpaca_farm_core.artifacts.files import canonical_json, sha256_text

CALL_SCHEMA = 1


@dataclass(frozen=True)
class Request:
    """One call to a judge.

    Attributes:
        model: Model name as the server knows it; where it is served is not part of it, so that an
            answer bought once serves every endpoint.
        messages: Rendered chat messages (`role`, `content`, perhaps `name`).
        sampling: Every other parameter of the call (temperature, max_tokens …), as sent.
        sample_index: Which of several draws for the same question.
    """

    model: str
    messages: tuple[Mapping[str, str], ...]
    sampling: Mapping[str, Any]
    sample_index: int = 0

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical JSON of all that can change the answer (64 hex digits)."""
        parts = [CALL_SCHEMA, self.model, self.messages, self.sampling, self.sample_index]
        return sha256_text(canonical_json(parts))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a judge said, raw, so that it can be parsed again without being bought again.

    Attributes:
        text: The answer; "" when the judge said nothing.
        finish_reason: As the server gave it ("stop", "length", "content_filter" …).
        usage: Token counts as the server gave them; {} when it gave none.
        model: Model name as the server gave it.
        fingerprint: The server's own mark of the model's build; "" when it gave none.
        refusal: Words of a refusal; "" when there was none.
        price_usd: What the call cost; None when unknown.
        logprobs: Token log-probabilities as the server gave them; None when not asked for.
        answered_at: When it came, in ISO 8601, UTC; "" when unknown.
    """

    text: str
    finish_reason: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    fingerprint: str = ""
    refusal: str = ""
    price_usd: float | None = None
    logprobs: Any = None
    answered_at: str = ""

    @property
    def refused(self) -> bool:
        """Whether the judge declined to answer (a typed content failure: kept, not asked again)."""
        return bool(self.refusal) or self.finish_reason == "content_filter"

    def to_json(self) -> dict[str, Any]:
        """Plain values for the cache."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer came; nothing is kept, so the next run asks again. `reason` is one word or two."""

    reason: str


Outcome = Answer | Failure


@dataclass
class CallStats:
    """What an annotator's calls came to so far (volatile: depends on what the cache held).

    Attributes:
        n_requests: Distinct questions.
        n_cached: Answered from the cache, or by another process while we waited.
        n_called: Answers and typed content failures bought by us.
        n_failed: Questions that stayed without answer.
        retries: Kind of transient fault → further tries it cost.
        faults: transient, permanent or content → tries that met one.
        spent_usd: What we paid for answers.
        spent_by: The same by annotator.
        saved_usd: What the answers found in the cache had cost.
        lost_usd: Worst case of calls that may have been paid for without an answer.
    """

    n_requests: int = 0
    n_cached: int = 0
    n_called: int = 0
    n_failed: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    spent_usd: float = 0.0
    spent_by: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    saved_usd: float = 0.0
    lost_usd: float = 0.0

    def timings(self) -> dict[str, float]:
        """Figures for the volatile part of a manifest."""
        figures = {"n_calls": self.n_called, "n_calls_cached": self.n_cached, "n_calls_failed": self.n_failed}
        figures |= {f"n_retries_{kind}": count for kind, count in sorted(self.retries.items())}
        figures |= {f"n_faults_{kind}": count for kind, count in sorted(self.faults.items())}
        money = {"spent_usd": self.spent_usd, "saved_usd": self.saved_usd, "lost_usd": self.lost_usd}
        money |= {f"spent_usd_{annotator}": dollars for annotator, dollars in sorted(self.spent_by.items())}
        return {name: float(value) for name, value in figures.items()} | {k: v for k, v in money.items() if v}
