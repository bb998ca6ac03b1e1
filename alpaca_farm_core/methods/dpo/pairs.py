"""Annotated pairs with the reference policy's log-probabilities: two artifacts in, pairs to learn from out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from alpaca_farm_core.artifacts.files import read_jsonl
from alpaca_farm_core.data.collate import collate
from alpaca_farm_core.data.pairs import TokenisedPairs
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.models.logprobs import response_logprobs
from alpaca_farm_core.types import Preference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGPROBS_FILE = "logprobs.jsonl"
"""One row per pair: number of the preference row, and per side tokens and summed log-probability; null = too long."""


class SideLogprobs(NamedTuple):
    """Summed log-probabilities of both responses, [B] each."""

    first_B: Tensor
    second_B: Tensor


@dataclass
class ReferredPairs:
    """Tokenised pairs and, per pair, the reference's (side 1, side 2) summed log-probabilities."""

    pairs: TokenisedPairs
    reference: list[tuple[float, float]]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)


def side_logprobs(policy: PreTrainedModel, pairs: TokenisedPairs, rows: Sequence[int], pad_id: int) -> SideLogprobs:
    """Summed log-probabilities of the responses (with EOS where finished) of some pairs; gradients flow."""
    prompts = [pairs.prompt_ids[row] for row in rows]
    responses = [pairs.response_1_ids[row] for row in rows] + [pairs.response_2_ids[row] for row in rows]
    batch = collate(prompts + prompts, responses, pad_id).to(policy.device)
    scores = response_logprobs(
        policy, batch.input_ids_BT, batch.attention_mask_BT, batch.response_mask_BT, entropies=False
    )
    sums_2B = scores.logprobs_BT.sum(1)  # 0 outside the responses
    return SideLogprobs(sums_2B[: len(rows)], sums_2B[len(rows) :])


def read_reference(folder: Path, rows: Sequence[Preference]) -> dict[int, tuple[float, float]]:
    """Number of a preference row → the reference's log-probabilities; rows that were too long are absent.

    Raises:
        DataError: the file does not belong to these preferences.
    """
    found = list(read_jsonl(folder / LOGPROBS_FILE))
    if [row["id"] for row in found] != [row.id for row in rows]:
        raise DataError(
            f"{folder / LOGPROBS_FILE} does not belong to these preferences.", "Make the reference log-probs again."
        )
    return {
        number: (float(row["logprob_1"]), float(row["logprob_2"]))
        for number, row in enumerate(found)
        if row["logprob_1"] is not None
    }
