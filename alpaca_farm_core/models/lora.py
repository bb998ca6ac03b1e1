"""Low-rank adapters on a frozen model (peft), and what they change about copying, saving and checkpoints.

Several adapted models share one frozen base: each is a tree of modules of its own over the same weight
tensors, so there is no adapter to switch on and off and none can be forgotten; the base itself is the
reference policy. Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models".
"""

from __future__ import annotations

import copy
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.backbone import backbone_of
from alpaca_farm_core.models.config import LoraConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTERS = "adapters"
"""Folder of an artifact that holds the adapters its merged weights were made of."""
_ADAPTER = "lora_"
_WEIGHTS, _SETTINGS = "adapters.safetensors", "adapters.json"

ModelT = TypeVar("ModelT", bound=nn.Module)


def sharing_weights(model: ModelT) -> ModelT:
    """Copy the tree of modules over the same parameter and buffer tensors; adapters are copied, not shared."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    shared: dict[int, Any] = {id(tensor): tensor for name, tensor in tensors if _ADAPTER not in name}
    return copy.deepcopy(model, shared)


def adapt(model: nn.Module, lora: LoraConfig, seed: int) -> None:
    """Freeze a model and put fresh adapters on its linear layers, in place; it computes the same as before.

    A model that has adapters already keeps them, and they are trained. With rank 0 nothing is done.

    Args:
        model: Backbone or whole model; 'all-linear' means the layers of its backbone.
        lora: Rank, scale and target layers.
        seed: Of the adapters' first weights.

    Raises:
        ModelError: peft is not installed, or a target layer does not exist.
    """
    if not lora.rank:
        return
    if not any(True for _ in _adapted_layers(model)):
        _inject(model, lora, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_ADAPTER in name)


def _inject(model: nn.Module, lora: LoraConfig, seed: int) -> None:
    try:
        from peft import LoraConfig as Settings
        from peft import inject_adapter_in_model
    except ImportError:
        raise ModelError(
            "lora.rank is set, but the package peft is not installed.", "Run `pip install 'alpaca-farm-flows[lora]'`."
        ) from None
    names = linear_layers(model)
    targets = names if lora.targets == ("all-linear",) else list(lora.targets)
    unknown = [target for target in targets if target not in names]
    if unknown or not targets:
        raise ModelError(
            f"lora.targets names {', '.join(unknown) or 'nothing'}, which {type(model).__name__} does not have.",
            f"Its linear layers are {', '.join(names)}; or write 'all-linear'.",
        )
    settings = Settings(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(settings, model)


def save_adapters(model: nn.Module, lora: LoraConfig, folder: Path) -> None:
    """Write what was trained, and how it was shaped, beside a merged model; nothing for rank 0."""
    if not lora.rank:
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(model).items()}, folder / _WEIGHTS
    )
    write_json(folder / _SETTINGS, lora.model_dump(mode="json"))


def read_adapters(model: PreTrainedModel, folder: Path, base: PreTrainedModel) -> None:
    """Replace a model's backbone by adapters over another model's, in place.

    Args:
        model: Merged model of the same architecture; its head gets the saved weights.
        folder: Written by `save_adapters`.
        base: Model whose backbone the adapters were trained on; its weights are shared.
    """
    setattr(model, model.base_model_prefix, sharing_weights(backbone_of(base)))
    _inject(model, LoraConfig.build(read_json(folder / _SETTINGS)), seed=0)
    state = load_file(folder / _WEIGHTS, device=str(base.device))
    missing = [name for name in state if name not in dict(model.named_parameters())]
    assert not missing, f"the adapters do not fit: {missing[:3]}"
    model.load_state_dict(state, strict=False)


def has_adapters(folder: Path) -> bool:
    """Whether `save_adapters` wrote into `folder`."""
    return (folder / _SETTINGS).is_file() and (folder / _WEIGHTS).is_file()


def linear_layers(model: nn.Module) -> list[str]:
    """Last names of the linear layers below the head, in order and each once."""
    backbone = getattr(model, "base_model", model)
    linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in linear))


def merged(model: ModelT) -> ModelT:
    """Return a copy with the adapters added into the weights; a model without adapters is returned itself."""
    if not any(True for _ in _adapted_layers(model)):
        return model
    whole = copy.deepcopy(model)
    for name, layer in list(_adapted_layers(whole)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(whole.get_submodule(parent), child, layer.get_base_layer())
    whole.__dict__.pop("peft_config", None)  # peft's mark on models that it has put adapters into
    return whole.requires_grad_(True)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict; of a model that is trained in part, only what is trained."""
    state: dict[str, Tensor] = model.state_dict()
    trained = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False)} - trained
    return {name: tensor for name, tensor in state.items() if name in trained} if frozen else state


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Take back what `trained_state` gave."""
    wanted = trained_state(model).keys()
    assert state.keys() == wanted, f"the checkpoint holds other weights: {sorted(state.keys() ^ wanted)[:3]}"
    model.load_state_dict(state, strict=False)


def _adapted_layers(model: nn.Module) -> Any:
    """Name and module of each layer with adapters."""
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield name, cast(Any, module)
