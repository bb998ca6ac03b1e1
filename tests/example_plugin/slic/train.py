"""SLiC-HF: policy and preferences in, policy folder with metrics and samples out.

Follows Zhao et al. 2023, equation 2: max(0, δ − log π(y⁺|x) + log π(y⁻|x)) − λ log π(y|x). It differs:
1. the tie is to the preferred answer, not to the SFT model's targets; 2. ties of the annotator are dropped.
"""

import torch

from alpaca_farm_core.data.pairs import tokenise_pairs
from alpaca_farm_core.data.preferences import usable_preferences
from alpaca_farm_core.data.rows import read_preferences
from alpaca_farm_core.methods.dpo.pairs import side_logprobs
from alpaca_farm_core.methods.supervised import load_trainee, train_policy
from alpaca_farm_core.training.loop import LossSums


class Calibration:
    """The objective; the loop batches, accumulates, checkpoints and resumes."""

    def __init__(self, model, pairs, pad_id, config):
        self.model, self.pairs, self.pad_id, self.config = model, pairs, pad_id, config

    def __len__(self):
        return len(self.pairs)

    def tokens(self, row):
        return self.pairs.tokens(row)

    def weight(self, row):
        return 1.0

    def loss(self, rows):
        first, second = side_logprobs(self.model, self.pairs, rows, self.pad_id)
        prefers_second = torch.tensor([self.pairs.target(row) > 0.5 for row in rows], device=first.device)
        better, worse = torch.where(prefers_second, second, first), torch.where(prefers_second, first, second)
        hinge = (self.config.margin - better + worse).clamp(min=0)
        return LossSums((hinge - self.config.tie * better).sum(), {"n_calibrated": (hinge == 0).sum()})

    def summary(self, counts):
        return {}

    def evaluate(self):
        return {}


def train(context):
    """Body of the stage."""
    config = context.config
    trainee = load_trainee(context)
    rows = read_preferences(context.inputs["preferences"].path / "preferences.jsonl")
    decided, labels = usable_preferences(rows, "drop")
    limit = min(config.max_length, trainee.context_length)
    pairs = tokenise_pairs(trainee.loaded.tokenizer, trainee.loaded.template, decided, limit, eos=True)
    objective = Calibration(trainee.loaded.model, pairs, trainee.pad_id, config)
    counts = {"n_pairs": len(pairs), "n_too_long": pairs.n_too_long, "n_ties": labels.n_ties}
    return train_policy(context, trainee, objective, counts)
