"""What an on-policy run writes down: a judged rollout in, metric rows and readable samples out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alpaca_farm_core.models.loading import LoadedModel
from alpaca_farm_core.training.masking import Total, masked_mean
from alpaca_farm_core.training.on_policy.config import OnPolicyConfig
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.types import Instruction


def rollout_metrics(judged: Judged, total: Total) -> dict[str, float]:
    """Averages over the responses of all processes.

    `kl` is the k1 estimate summed over a response, `kl_k3` the k3 estimate likewise, `entropy` in nats
    per token, `response_length` in tokens.
    """
    finished_N = torch.tensor(judged.responses.finished, device=judged.mask_NR.device).float()
    everywhere = torch.ones_like(finished_N, dtype=torch.bool)

    def mean(values_N: Tensor) -> float:
        return float(masked_mean(values_N.float(), everywhere, total))

    reward = mean(judged.rewards_N)
    return {
        "reward": reward,
        "reward_std": mean((judged.rewards_N - reward).square()) ** 0.5,
        "penalised_reward": mean(judged.penalised_N),
        "kl": mean(judged.kl_N),
        "kl_k3": mean(judged.k3_N),
        "entropy": float(masked_mean(judged.entropies_NR, judged.mask_NR, total)),
        "response_length": mean(judged.mask_NR.sum(1)),
        "unfinished_share": 1 - mean(finished_N),
        **{
            f"{name}_share": mean(torch.full_like(finished_N, n / len(finished_N))) for name, n in judged.counts.items()
        },
    }


def heldout_metrics(judged: Judged, config: OnPolicyConfig, total: Total) -> dict[str, float]:
    """Figures of an evaluation; `heldout_objective` = penalised reward − kl_coef · KL is what `best` means."""
    metrics = rollout_metrics(judged, total)
    names = ("reward", "penalised_reward", "kl", "kl_k3", "response_length", "unfinished_share")
    objective = metrics["penalised_reward"] - config.kl_coef * metrics["kl"]
    return {f"heldout_{name}": metrics[name] for name in names} | {"heldout_objective": objective}


def sample_rows(
    step: int, judged: Judged, instructions: list[Instruction], loaded: LoadedModel, count: int
) -> list[dict[str, Any]]:
    """Return the first `count` responses of a rollout as text, with their figures."""
    responses = judged.responses
    rewards, penalised, kl = (values.tolist() for values in (judged.rewards_N, judged.penalised_N, judged.kl_N))
    return [
        {
            "step": step,
            "instruction": instructions[row].instruction,
            "input": instructions[row].input,
            "output": str(loaded.tokenizer.decode(responses.response_ids[row], skip_special_tokens=True)),
            "finished": responses.finished[row],
            "n_tokens": len(responses.response_ids[row]),
            "reward": rewards[row],
            "penalised_reward": penalised[row],
            "kl": kl[row],
        }
        for row in range(min(count, len(responses)))
    ]
