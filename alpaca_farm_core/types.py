"""Rows that stages exchange, and the legend of tensor shapes used in docstrings and names.

Shape suffixes: B rows of a batch, T positions of a sequence, V vocabulary, D hidden width,
N rollouts. `logprobs_BT` is a float tensor of shape [B, T].
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

Split = Literal["sft", "preference", "unlabeled", "val", "eval"]
SPLITS: tuple[Split, ...] = ("sft", "preference", "unlabeled", "val", "eval")


def instruction_id(instruction: str, input: str) -> str:
    """Identify an instruction by its content (16 hex digits), never by its row number."""
    return hashlib.sha256(f"{instruction}\x1f{input}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction in AlpacaFarm's schema; `output` is its demonstration ("" when there is none).

    `dataset` names the source or task family, as in AlpacaEval's files.
    """

    instruction: str
    input: str = ""
    output: str = ""
    dataset: str = ""

    @property
    def id(self) -> str:
        """Content identity of (instruction, input)."""
        return instruction_id(self.instruction, self.input)

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Output:
    """One model answer in AlpacaEval's schema, and what sampling knew about it.

    `finished` is false when the answer hit the token limit before EOS. `sample_id` counts the
    samples of one instruction from 0.
    """

    instruction: str
    input: str
    output: str
    generator: str
    dataset: str = ""
    sample_id: int = 0
    finished: bool = True
    n_tokens: int = 0

    @property
    def id(self) -> str:
        """Content identity of (instruction, input)."""
        return instruction_id(self.instruction, self.input)

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one instruction, before or without a judgement."""

    instruction: str
    input: str
    output_1: str
    output_2: str
    dataset: str = ""
    finished_1: bool = True
    finished_2: bool = True

    @property
    def id(self) -> str:
        """Content identity of (instruction, input)."""
        return instruction_id(self.instruction, self.input)


AnnotationState = Literal["ok", "tie", "noised", "unparsable", "refused", "failed"]
Order = Literal["1 first", "2 first", "both"]


@dataclass(frozen=True, slots=True)
class Passport:
    """Where a judgement came from, so that it can be traced, priced and compared later.

    Attributes:
        model: Judge model as asked for.
        prompt: sha256 of the annotator's settings and templates.
        calls: Keys of the calls behind it, in the call cache.
        order: Which output the judge read first.
        prefers_first: How far it went for the output it read first, in [0, 1]; over both orders the mean.
            None without a preference.
        consistent: Whether both orders gave the same winner; None where only one was asked.
        served_model: Model name as the server gave it.
        fingerprint: The server's mark of the model's build; several are joined by a space.
        price_usd: Its share of the price of its calls, whenever they were paid; None when unknown.
        answered_at: When the (last) answer came, in ISO 8601, UTC; "" when unknown.
    """

    model: str
    prompt: str
    calls: tuple[str, ...]
    order: Order
    prefers_first: float | None = None
    consistent: bool | None = None
    served_model: str = ""
    fingerprint: str = ""
    price_usd: float | None = None
    answered_at: str = ""

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**{name: getattr(self, name) for name in self.__slots__}, "calls": list(self.calls)}


@dataclass(frozen=True, slots=True)
class Annotation:
    """A judgement of one pair.

    `preference` lies in [1, 2]: 1 means output_1 is better, 2 means output_2, 1.5 a tie; it is None
    exactly when `state` is unparsable, refused or failed. `tie` is an identical pair that needed no
    call; `noised` a label replaced by a coin flip. Judgements of a model carry a passport.
    """

    preference: float | None
    annotator: str
    state: AnnotationState = "ok"
    explanation: str = ""
    passport: Passport | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """An annotated pair as stored: the pair's fields and the annotation's, flat."""

    instruction: str
    input: str
    output_1: str
    output_2: str
    preference: float | None
    annotator: str
    dataset: str = ""
    finished_1: bool = True
    finished_2: bool = True
    state: AnnotationState = "ok"
    explanation: str = ""

    @classmethod
    def of(cls, pair: Pair, label: Annotation) -> Preference:
        """Join a pair and its annotation; the passport is kept apart, as it holds times."""
        return cls(
            **asdict(pair),
            preference=label.preference,
            annotator=label.annotator,
            state=label.state,
            explanation=label.explanation,
        )

    @property
    def id(self) -> str:
        """Content identity of (instruction, input)."""
        return instruction_id(self.instruction, self.input)

    def to_row(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)
