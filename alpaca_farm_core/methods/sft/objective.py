"""Demonstrations as an objective: tokenised rows in, summed cross-entropy of their responses out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from alpaca_farm_core.data.collate import collate
from alpaca_farm_core.data.tokenise import TokenisedRows
from alpaca_farm_core.methods.sft.loss import cross_entropy_sum
from alpaca_farm_core.models.logprobs import response_logprobs
from alpaca_farm_core.models.packing import micro_batches
from alpaca_farm_core.training.loop import LossSums

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DemonstrationLoss:
    """Next-token loss on responses; prompts are seen and not trained on."""

    def __init__(
        self,
        model: PreTrainedModel,
        train: TokenisedRows,
        heldout: TokenisedRows,
        pad_id: int,
        micro_batch_tokens: int,
    ) -> None:
        self._model, self._train, self._heldout = model, train, heldout
        self._pad_id, self._micro_batch_tokens = pad_id, micro_batch_tokens

    def __len__(self) -> int:
        """Return the number of training rows."""
        return len(self._train)

    def tokens(self, row: int) -> int:
        """Tokens of prompt and response."""
        return _tokens(self._train, row)

    def weight(self, row: int) -> float:
        """Trained tokens: the response with its EOS."""
        return len(self._train.response_ids[row])

    def loss(self, rows: list[int]) -> LossSums:
        """Summed cross-entropy of training rows."""
        return LossSums(self._cross_entropy(self._train, rows))

    def summary(self, counts: Mapping[str, float]) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Mean loss per response token on the held-out rows (nothing when there are none)."""
        if not len(self._heldout):
            return {}
        lengths = [_tokens(self._heldout, row) for row in range(len(self._heldout))]
        total = torch.zeros((), device=self._model.device)
        for rows in micro_batches(self._model, lengths, self._micro_batch_tokens):
            total += self._cross_entropy(self._heldout, rows)
        return {"eval_loss": float(total) / sum(map(len, self._heldout.response_ids))}

    def _cross_entropy(self, data: TokenisedRows, rows: list[int]) -> torch.Tensor:
        batch = collate([data.prompt_ids[r] for r in rows], [data.response_ids[r] for r in rows], self._pad_id)
        batch = batch.to(self._model.device)
        scores = response_logprobs(
            self._model, batch.input_ids_BT, batch.attention_mask_BT, batch.response_mask_BT, entropies=False
        )
        return cross_entropy_sum(scores.logprobs_BT, batch.response_mask_BT)


def _tokens(data: TokenisedRows, row: int) -> int:
    return len(data.prompt_ids[row]) + len(data.response_ids[row])
