"""A reward model as reward: reads the policy's tokens, or the answers' text when its tokenizer is another one."""

from __future__ import annotations

from dataclasses import replace

from alpaca_farm_core.annotators.calls import CallStats
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.generation.rewards import rewards_of_outputs
from alpaca_farm_core.models.loading import LoadedModel
from alpaca_farm_core.training.rewards.base import Answers, Scores
from alpaca_farm_core.training.rollouts import Passes


class ModelReward:
    """Rewards of a reward model.

    Attributes:
        model: The reward model.
        reads_tokens: Whether it reads the policy's tokens.

    Args:
        reward: The model with its tokenizer and template.
        policy: The policy whose answers are rewarded; equal vocabularies and templates share tokens.
        passes: How forward passes run.
        execution: Tokens of one pass.
        with_eos: Show the EOS of finished answers to reward models that read it (the original never does).
    """

    def __init__(
        self,
        reward: LoadedModel,
        policy: LoadedModel,
        passes: Passes,
        execution: ExecutionConfig,
        with_eos: bool = True,
    ) -> None:
        self._reward, self._passes, self._execution, self._with_eos = reward, passes, execution, with_eos
        self.stats = CallStats()
        self.model = reward.model
        self.reads_tokens = (
            reward.tokenizer.get_vocab() == policy.tokenizer.get_vocab() and reward.template == policy.template
        )

    def __call__(self, answers: Answers) -> Scores:
        """Read the reward at the end of each answer."""
        if self.reads_tokens:
            return Scores(self._passes.rewards(self._reward.model, answers.responses, self._with_eos))
        rows = [replace(row, finished=row.finished and self._with_eos) for row in answers.rows()]
        with self._passes.arithmetic():
            return Scores(rewards_of_outputs(self._reward, rows, self._execution))
