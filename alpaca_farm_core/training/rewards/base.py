"""What every reward offers, whatever stands behind it: answers in, one finite number per answer out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from alpaca_farm_core.annotators.calls import CallStats
from alpaca_farm_core.training.rollouts import Responses
from alpaca_farm_core.types import Instruction, Output

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answers:
    """N answers of a policy, as tokens and as text.

    Attributes:
        instructions: What was asked, one per answer.
        responses: What was answered, as the policy's tokens.
        tokenizer: The policy's.
    """

    instructions: list[Instruction]
    responses: Responses
    tokenizer: PreTrainedTokenizerBase

    def rows(self) -> list[Output]:
        """The answers as text, special tokens left out."""
        return [
            Output(
                asked.instruction,
                asked.input,
                str(self.tokenizer.decode(ids, skip_special_tokens=True)),
                "policy",
                asked.dataset,
                finished=finished,
                n_tokens=len(ids),
            )
            for asked, ids, finished in zip(
                self.instructions, self.responses.response_ids, self.responses.finished, strict=True
            )
        ]


@dataclass(frozen=True)
class Scores:
    """Rewards of N answers, and what else there is to say of them.

    Attributes:
        rewards: One per answer.
        counts: Sums over the answers by name, for the metrics of the step.
    """

    rewards: list[float]
    counts: Mapping[str, float] = field(default_factory=dict)


class Reward(Protocol):
    """Rewards answers. The same answer gets the same reward, so a run that resumes goes on to the same bits.

    Attributes:
        stats: What its calls came to so far; nothing where none are made.
    """

    @property
    def stats(self) -> CallStats:
        """Of this process."""

    def __call__(self, answers: Answers) -> Scores:
        """Reward each answer.

        Raises:
            AnnotationError: the endpoint, function or judge gives none; what was paid for is kept, and
                the run resumes from its last checkpoint.
        """
