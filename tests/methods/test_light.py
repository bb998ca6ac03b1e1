import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "alpaca_farm_core.methods.sft.stage",
        "alpaca_farm_core.methods.reward_model.stage",
        "alpaca_farm_core.methods.ppo.stage",
        "alpaca_farm_core.methods.registry",
        "alpaca_farm_core.evaluation.comparison.stage",
        "alpaca_farm_core.methods.rloo.stage",
        "alpaca_farm_core.methods.grpo.stage",
        "alpaca_farm_core.methods.quark.stage",
        "alpaca_farm_core.generation.stage",
    ],
)
def test_a_stage_is_declared_without_torch(module):
    heavy = ("torch", "transformers", "openai", "datasets", "pandas", "prefect")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
