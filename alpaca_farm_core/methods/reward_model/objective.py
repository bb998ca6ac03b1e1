"""Pairs as an objective: tokenised pairs in, summed loss and counts out. Both sides share a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alpaca_farm_core.data.collate import collate
from alpaca_farm_core.data.pairs import TokenisedPairs
from alpaca_farm_core.generation.scoring import rewards_at_end
from alpaca_farm_core.methods.reward_model.loss import pair_sums
from alpaca_farm_core.models.packing import micro_batches, packing_obstacle
from alpaca_farm_core.training.loop import LossSums

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PairLoss:
    """Bradley-Terry loss of a reward model on annotated pairs."""

    def __init__(
        self,
        model: PreTrainedModel,
        train: TokenisedPairs,
        heldout: TokenisedPairs,
        pad_id: int,
        micro_batch_tokens: int,
    ) -> None:
        self._model, self._train, self._heldout = model, train, heldout
        self._pad_id, self._micro_batch_tokens = pad_id, micro_batch_tokens

    def __len__(self) -> int:
        """Return the number of training pairs."""
        return len(self._train)

    def tokens(self, row: int) -> int:
        """Tokens of both sides."""
        return self._tokens(self._train, row)

    def weight(self, row: int) -> float:
        """Every pair counts the same."""
        return 1.0

    def loss(self, rows: list[int]) -> LossSums:
        """Loss and counts of training pairs."""
        rewards_1, rewards_2 = self._rewards(self._train, rows)
        targets = torch.tensor([self._train.target(row) for row in rows], device=rewards_1.device)
        sums = pair_sums(rewards_1, rewards_2, targets)
        return LossSums(sums.loss, {"n_correct": sums.n_correct, "n_decided": sums.n_decided})

    def summary(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Accuracy on the step's pairs (absent when all are ties)."""
        return {"accuracy": counts["n_correct"] / counts["n_decided"]} if counts["n_decided"] else {}

    def evaluate(self) -> dict[str, float]:
        """Loss, accuracy, share of output_2 among predictions and labels, on the held-out pairs."""
        pairs = self._heldout
        rewards_1, rewards_2 = self.heldout_rewards()
        targets = torch.tensor([pairs.target(index) for index in range(len(pairs))])
        sums = pair_sums(rewards_1, rewards_2, targets)
        metrics = {
            "eval_loss": float(sums.loss) / len(pairs),
            "eval_positive_rate": float(sums.n_positive) / len(pairs),
            "eval_label_rate": float(targets.mean()),
        }
        if sums.n_decided:
            metrics["eval_accuracy"] = float(sums.n_correct / sums.n_decided)
        return metrics

    @torch.no_grad()
    def heldout_rewards(self) -> tuple[Tensor, Tensor]:
        """Rewards of both responses of each held-out pair, float32 on the CPU."""
        pairs = self._heldout
        rewards = torch.zeros(2, len(pairs))
        tokens = [self._tokens(pairs, index) for index in range(len(pairs))]
        for rows in micro_batches(self._model, tokens, self._micro_batch_tokens):
            rewards[:, rows] = torch.stack(self._rewards(pairs, rows)).cpu()
        return rewards[0], rewards[1]

    def _tokens(self, pairs: TokenisedPairs, row: int) -> int:
        return pairs.tokens(row, padded=bool(packing_obstacle(self._model)))

    def _rewards(self, pairs: TokenisedPairs, rows: list[int]) -> tuple[Tensor, Tensor]:
        prompts = [pairs.prompt_ids[row] for row in rows]
        responses = [pairs.response_1_ids[row] for row in rows] + [pairs.response_2_ids[row] for row in rows]
        batch = collate(prompts + prompts, responses, self._pad_id).to(self._model.device)
        rewards_2B = rewards_at_end(self._model, batch.input_ids_BT, batch.attention_mask_BT.sum(1))
        return rewards_2B[: len(rows)], rewards_2B[len(rows) :]
