"""All methods by name: the built-in ones, then those that installed packages register.

To add a method: make its folder with a `METHOD` in `stage.py` and add it to the list below, or register it
from another package under the entry-point group `alpaca_farm.methods`. Loads declarations only, no trainer.
"""

from __future__ import annotations

from functools import cache

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import ConfigError, UsageError
from alpaca_farm_core.methods.best_of_n.stage import METHOD as BEST_OF_N
from alpaca_farm_core.methods.dpo.stage import METHOD as DPO
from alpaca_farm_core.methods.expert_iteration.stage import METHOD as EXPERT_ITERATION
from alpaca_farm_core.methods.feedme.stage import METHOD as FEEDME
from alpaca_farm_core.methods.grpo.stage import METHOD as GRPO
from alpaca_farm_core.methods.method import SHARED, Method
from alpaca_farm_core.methods.ppo.stage import METHOD as PPO
from alpaca_farm_core.methods.quark.stage import METHOD as QUARK
from alpaca_farm_core.methods.reward_conditioning.stage import METHOD as REWARD_CONDITIONING
from alpaca_farm_core.methods.rloo.stage import METHOD as RLOO
from alpaca_farm_core.pipeline.stage import Stage
from alpaca_farm_core.plugins import METHODS, load_plugin, plugins

BUILT_IN: tuple[Method, ...] = (
    BEST_OF_N,
    EXPERT_ITERATION,
    PPO,
    QUARK,
    DPO,
    FEEDME,
    REWARD_CONDITIONING,
    RLOO,
    GRPO,
)


@cache
def methods() -> dict[str, Method]:
    """Name → method, in the order of tables.

    Raises:
        ConfigError: a package registers something that is no method, or takes a name that is taken.
    """
    found = {method.name: method for method in BUILT_IN}
    for name in sorted(plugins(METHODS)):
        method = load_plugin(METHODS, name)
        if not isinstance(method, Method) or method.name != name:
            raise ConfigError(f"'{name}' registers {method!r:.80}, not a Method of that name.", "Repair the package.")
        if name in found:
            raise ConfigError(f"A package registers '{name}', which is built in.", "Give its method another name.")
        found[name] = _checked(method)
    return found


def method_named(name: str) -> Method:
    """Look a method up.

    Raises:
        UsageError: there is none of that name.
    """
    known = methods()
    if name not in known:
        raise UsageError(f"There is no method '{name}'.", did_you_mean(name, known))
    return known[name]


def method_stages() -> tuple[Stage, ...]:
    """Stages of all methods."""
    return tuple(stage for method in methods().values() for stage in method.stages)


def _checked(method: Method) -> Method:
    """Find what would otherwise break far from the package that is at fault."""
    if not method.stages or method.stages[-1].output not in ("policy", "outputs"):
        raise ConfigError(f"Method '{method.name}' makes neither a policy nor outputs.", "Repair the package.")
    taken = {stage.name for other in BUILT_IN for stage in other.stages} | set(SHARED)
    clash = sorted(taken & {stage.name for stage in method.stages})
    if clash:
        raise ConfigError(
            f"Method '{method.name}' brings a stage '{clash[0]}', a name that is taken.", "Rename the stage."
        )
    return method
