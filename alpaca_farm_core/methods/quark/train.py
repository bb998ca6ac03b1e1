"""Quark: policy, reward and prompts in; the best policy, its checkpoints, metrics and sampled rollouts out.

Source: Lu et al. 2022, "Quark: controllable text generation with reinforced unlearning". The loop is
`training.on_policy`. How it differs from the paper and from AlpacaFarm:
1. EOS is a target, and every response token is predicted from the token before it: nothing is left-padded;
2. the pool is one for all processes;
3. equal rewards share a quantile, so that a token never marks a difference that is none;
4. by default the best quantile alone is learnt, without tokens, as AlpacaFarm does; the paper's variant is
   train_on = 'all';
5. a token is the last of the prompt, right before the answer; the saved prompt template ends with the best one;
6. losses are means over target tokens, never over padding.
"""

from __future__ import annotations

from dataclasses import replace

from alpaca_farm_core.methods.quark.config import QuarkConfig
from alpaca_farm_core.methods.quark.objective import Quark, reward_tokens
from alpaca_farm_core.models.tokens import follow_template
from alpaca_farm_core.pipeline.stage import StageContext, StageResult
from alpaca_farm_core.training.on_policy.loop import OnPolicy
from alpaca_farm_core.training.on_policy.setup import set_up


def train(context: StageContext) -> StageResult:
    """Body of the stage `quark`.

    Raises:
        DataError: too few prompts for one step.
        ModelError: a model cannot be used.
        TrainingDivergedError: a reward, loss or gradient became NaN or infinite.
    """
    config: QuarkConfig = context.config
    tokens = reward_tokens(config)
    setup = set_up(context, tokens)
    algorithm = Quark(setup)
    if tokens:  # whoever decodes the policy conditions it on the best quantile
        plain = setup.loaded.template
        asked = plain.ending_with(tokens[0])
        follow_template(setup.loaded.tokenizer, plain, asked)
        setup = replace(setup, loaded=replace(setup.loaded, template=asked))
    return OnPolicy(context, setup, algorithm).train()
