"""DPO as an objective of the training loop: pairs with reference log-probabilities in, summed loss and counts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from alpaca_farm_core.methods.dpo.config import DPOConfig
from alpaca_farm_core.methods.dpo.loss import DPOSums, ipo_loss, log_ratios, pair_sums, sigmoid_loss
from alpaca_farm_core.methods.dpo.pairs import ReferredPairs, side_logprobs
from alpaca_farm_core.models.packing import micro_batches, packing_obstacle
from alpaca_farm_core.training.loop import LossSums

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PreferenceLoss:
    """DPO or IPO of a policy on annotated pairs; both sides share a micro-batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        train: ReferredPairs,
        heldout: ReferredPairs,
        config: DPOConfig,
        pad_id: int,
        micro_batch_tokens: int,
    ) -> None:
        self._model, self._train, self._heldout, self._config = model, train, heldout, config
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
        sums = self._sums(self._train, rows)._asdict()
        return LossSums(sums.pop("loss"), sums)

    def summary(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Accuracy and mean implicit rewards of the step's decided pairs (absent when all are ties)."""
        n = counts["n_decided"]
        if not n:
            return {}
        means = {name: counts[name] / n for name in ("margin", "winner_reward", "loser_reward")}
        return {"accuracy": counts["n_correct"] / n, **means}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The same figures on the held-out pairs."""
        pairs = self._heldout.pairs
        totals: dict[str, float] = {}
        for rows in micro_batches(
            self._model, [self._tokens(self._heldout, i) for i in range(len(pairs))], self._micro_batch_tokens
        ):
            for name, value in self._sums(self._heldout, rows)._asdict().items():
                totals[name] = totals.get(name, 0.0) + float(value)
        figures = {"loss": totals.pop("loss") / len(pairs), **self.summary(totals)}
        return {f"eval_{name}": value for name, value in figures.items()}

    def _tokens(self, referred: ReferredPairs, row: int) -> int:
        return referred.pairs.tokens(row, padded=bool(packing_obstacle(self._model)))

    def _sums(self, referred: ReferredPairs, rows: list[int]) -> DPOSums:
        config, pairs = self._config, referred.pairs
        sides = side_logprobs(self._model, pairs, rows, self._pad_id)
        device = sides.first_B.device
        reference_2B = torch.tensor([referred.reference[row] for row in rows], device=device).T
        lengths = (pairs.response_1_ids, pairs.response_2_ids)
        ratios = [
            log_ratios(
                logprobs_B,
                reference_B,
                torch.tensor([max(len(ids[row]), 1) for row in rows], device=device)
                if config.length_normalised
                else None,
            )
            for logprobs_B, reference_B, ids in zip(sides, reference_2B, lengths, strict=True)
        ]
        targets_B = torch.tensor([pairs.target(row) for row in rows], device=device)
        margins_B = ratios[0] - ratios[1]
        losses_B = (
            ipo_loss(margins_B, targets_B, config.beta)
            if config.loss == "ipo"
            else sigmoid_loss(margins_B, targets_B, config.beta, config.label_smoothing)
        )
        return pair_sums(ratios[0], ratios[1], losses_B, targets_B, config.beta)
