"""PPO: policy, reward and prompts in; the best policy, its checkpoints, metrics and sampled rollouts out.

Source: Schulman et al. 2017; Ouyang et al. 2022. The loop is `training.on_policy`; the losses are in `loss.py`.
How it differs from the textbook and from AlpacaFarm:
1. whitening, losses and means are over response tokens of the whole batch, never over padding;
2. the KL penalty is the unclamped k1 estimate; k2 or k3 can be a term of the loss;
3. a response that does not end can be given a penalty instead of its reward, decided on token ids;
4. learning rates, prompts and random numbers are functions of the step, so a resumed run cannot drift.
"""

from __future__ import annotations

from alpaca_farm_core.methods.ppo.objective import PPO
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.on_policy.loop import OnPolicy
from alpaca_farm_core.training.on_policy.setup import set_up


def train(context: StageContext) -> StageResult:
    """Body of the stage `ppo`.

    Raises:
        DataError: too few prompts for one step.
        ModelError: a model cannot be used.
        TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
    """
    setup = set_up(context, with_eos=not context.config.paper_compat)
    return OnPolicy(context, setup, PPO(setup)).train()
