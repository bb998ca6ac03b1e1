"""A policy that says nothing: another one with weights that always choose EOS, published under the same name."""

import shutil

from transformers import AutoModelForCausalLM

from alpaca_farm_core.config.base import Config
from alpaca_farm_core.pipeline.run import run_stage
from alpaca_farm_core.pipeline.stage import Stage, StageResult


def worsen(store, policy):
    """Publish the next version of a policy; all its answers are empty."""
    stage = Stage("worsen", 1, Config, {"policy": "policy"}, "policy", _silence)
    return run_stage(stage, Config(), {"policy": policy}, store=store, name=policy.name).artifact


def _silence(context):
    shutil.copytree(context.inputs["policy"].path, context.output, dirs_exist_ok=True)
    shutil.rmtree(context.output / "checkpoints", ignore_errors=True)
    (context.output / "manifest.json").unlink()
    model = AutoModelForCausalLM.from_pretrained(context.output)
    for name, weights in model.state_dict().items():
        if "o_proj" in name or "down_proj" in name:
            weights.zero_()  # what goes in comes out
        elif "embed_tokens" in name or "lm_head" in name:
            weights.fill_(1.0)  # one direction for all tokens, and EOS far along it
            weights[model.config.eos_token_id] = 10.0
        elif name == "model.norm.weight":
            weights.fill_(1.0)
    model.save_pretrained(context.output)
    return StageResult()
