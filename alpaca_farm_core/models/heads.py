"""The critic: a scalar head that gives a value at every position, on the policy's states or a backbone of its own.

Hidden states or token ids in, values out. Which states they are values of, and how they are trained, is PPO's
business.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.backbone import backbone_of, hidden_states
from alpaca_farm_core.models.lora import sharing_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ValueHead(nn.Linear):
    """Hidden states to values, in float32; 0 everywhere at first. For the states of `model`."""

    def __init__(self, model: PreTrainedModel) -> None:
        width = int(model.config.get_text_config().hidden_size)
        super().__init__(width, 1, dtype=torch.float32, device=model.device)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map states [..., D] to values [...]."""
        with torch.autocast(hidden.device.type, enabled=False):  # three digits are too few for a value
            return super().forward(hidden.float()).squeeze(-1).clone()  # FSDP wants no view


class ValueModel(nn.Module):
    """Backbone and value head, initialised from a policy or a reward model by `from_model`."""

    def __init__(self, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.value_head = ValueHead(backbone)

    @classmethod
    def from_model(cls, model: PreTrainedModel, zero_head: bool = True, share: bool = False) -> ValueModel:
        """Copy the backbone of a policy or a reward model.

        Args:
            model: Causal LM or sequence classifier.
            zero_head: Start with value 0 everywhere, as AlpacaFarm does; otherwise start from the
                reward model's own head.
            share: Have a tree of modules of its own over the source's weights, to be given adapters.

        Raises:
            ModelError: `zero_head` is false and the model has no reward head.
        """
        backbone = backbone_of(model)
        value = cls(sharing_weights(backbone) if share else copy.deepcopy(backbone))
        if not zero_head:
            score = getattr(model, "score", None)
            if not isinstance(score, nn.Linear):
                raise ModelError(
                    f"{type(model).__name__} has no reward head to start the critic from.",
                    "Initialise the critic from the reward model, or with a zero head.",
                )
            with torch.no_grad():
                value.value_head.weight.copy_(score.weight)
        return value

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor, wanted_BT: Tensor | None = None) -> Tensor:
        """Return values_BT (float32): the value at t has seen tokens 0 … t. Undefined where not wanted."""
        return cast(Tensor, self.value_head(hidden_states(self.backbone, input_ids_BT, attention_mask_BT, wanted_BT)))

    def save(self, path: Path) -> None:
        """Write all weights to one safetensors file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}, path)

    def restore(self, path: Path) -> None:
        """Read back what `save` wrote, into a model of the same shape."""
        weights: dict[str, Any] = load_file(path)
        self.load_state_dict(weights)
