"""Models on disk and in memory: base models, policies and reward models, always as plain Hugging Face folders.

A config or an artifact's folder in; model, tokenizer and prompt template together out. Training mode,
optimisers and what the model is used for are other people's business. ModelError says what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.data.hub import first_line
from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.rows import read_split
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.models.config import NANO, SMOLLM2, ModelConfig
from alpaca_farm_core.models.device import DTYPES, choose_device
from alpaca_farm_core.models.external import check_model_folder, is_local
from alpaca_farm_core.models.pretrained import describe_attention, read_pretrained, without_progress_bars
from alpaca_farm_core.models.tokens import ensure_special_tokens, resolve_template, set_chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


_OF_ANOTHER_HEAD = ("architectures", "id2label", "label2id")
_OF_THIS_MACHINE = ("is_local", "local_files_only")


@dataclass
class LoadedModel:
    """What belongs together.

    Attributes:
        model: Causal LM or sequence classifier, on its device, in eval mode.
        tokenizer: Pad token set and different from EOS.
        template: How instructions become prompts.
        notes: What happened on the way that people may want to know (kernel chosen, token added).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    notes: tuple[str, ...] = ()


def load_base(config: ModelConfig, data_folder: Path, execution: ExecutionConfig, seed: int) -> LoadedModel:
    """Load the base model, ready to be trained and saved.

    Args:
        config: Which model.
        data_folder: Dataset artifact; the nano model trains its tokenizer on its sft split.
        execution: Device and attention kernel.
        seed: Of the nano model's initial weights.

    Raises:
        ModelError: not a model, no EOS token, package missing, or `max_length` beyond its positions.
    """
    if config.source == NANO:
        model, tokenizer, template, notes = _fresh_nano(config, data_folder, execution, seed)
    else:
        model, tokenizer, notes = read_causal_lm(config, execution)
        template = resolve_template(config.template, tokenizer)
    check_positions(model.config, config.max_length, config.source)
    notes = (*notes, *ensure_special_tokens(model, tokenizer))
    set_chat_template(tokenizer, config.template, template)
    return LoadedModel(model.to(choose_device(execution)).eval(), tokenizer, template, notes)


def read_causal_lm(
    config: ModelConfig, execution: ExecutionConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, tuple[str, ...]]:
    """Read a pretrained causal LM (not the nano model) as it is, on the CPU: model, tokenizer, notes for people.

    Raises:
        ModelError: not a model, or a package is missing.
    """
    with without_progress_bars():
        return _read_base(config, execution)


def load_policy(folder: Path, execution: ExecutionConfig) -> LoadedModel:
    """Load a policy artifact in the precision it was saved in.

    Raises:
        ModelError: the folder is not a model.
        DataError: it has no prompt template.
    """
    from transformers import AutoModelForCausalLM

    return _read_ours(AutoModelForCausalLM, folder, execution)


def load_reward_model(folder: Path, execution: ExecutionConfig) -> LoadedModel:
    """Load a reward-model artifact (`AutoModelForSequenceClassification`, one label); errors as `load_policy`."""
    from transformers import AutoModelForSequenceClassification

    loaded = _read_ours(AutoModelForSequenceClassification, folder, execution)
    if loaded.model.config.num_labels != 1:
        raise ModelError(
            f"{folder} has {loaded.model.config.num_labels} labels; a reward model has one.", "Point at a reward model."
        )
    return loaded


def save_policy(loaded: LoadedModel, folder: Path) -> None:
    """Write a plain Hugging Face folder and `prompt_template.json`; equal weights give equal bytes."""
    _save(loaded, folder)


def save_reward_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a reward model as a plain Hugging Face folder and `prompt_template.json`."""
    _save(loaded, folder)


def reward_model_from_policy(loaded: LoadedModel, seed: int = 0) -> LoadedModel:
    """Put a fresh one-label head without bias on a copy of the policy's backbone.

    The head is drawn from N(0, initializer_range²), as Hugging Face would, but from `seed` alone.

    Raises:
        ModelError: transformers has no sequence classifier for this architecture.
    """
    from transformers import AutoModelForSequenceClassification

    policy = loaded.model
    described = {name: value for name, value in policy.config.to_dict().items() if name not in _OF_ANOTHER_HEAD}
    config = type(policy.config).from_dict({**described, "num_labels": 1})
    for part in (config, config.get_text_config()):
        part.pad_token_id = loaded.tokenizer.pad_token_id
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            reward = AutoModelForSequenceClassification.from_config(
                config, dtype=policy.dtype, attn_implementation=policy.config._attn_implementation
            )
    except ValueError as error:
        raise ModelError(
            f"transformers has no sequence classifier for '{config.model_type}': {first_line(error)}",
            "Choose a base model whose architecture has one (Llama, Qwen, Gemma, GPT-NeoX, GPT-2 …).",
        ) from None
    reward.base_model.load_state_dict(policy.base_model.state_dict())
    _initialise_head(reward, seed)
    return replace(loaded, model=reward.to(policy.device).eval(), notes=())


def _initialise_head(reward: PreTrainedModel, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = getattr(reward, "score", None)
    if not isinstance(score, torch.nn.Linear) or "bias" in dict(score.named_parameters()):
        raise ModelError(
            f"{type(reward).__name__} has no linear head named 'score' without bias.",
            "Choose a base model whose sequence classifier has one (Llama, Qwen, Gemma, GPT-NeoX, GPT-2 …).",
        )
    weight = score.weight
    deviation = float(getattr(reward.config, "initializer_range", 0.02) or 0.02)
    drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32) * deviation
    with torch.no_grad():
        weight.copy_(drawn)


def _fresh_nano(
    config: ModelConfig, data_folder: Path, execution: ExecutionConfig, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, PromptTemplate, tuple[str, ...]]:
    from alpaca_farm_core.models.nano import build_nano_model, nano_config, train_nano_tokenizer

    template = resolve_template(config.template, None)
    tokenizer = train_nano_tokenizer(
        read_split(data_folder, "sft"), template, config.nano.vocab_size, config.max_length
    )
    architecture = nano_config(config.nano, config.max_length, tokenizer)
    attention, note = describe_attention(execution, architecture, DTYPES[config.dtype])
    return build_nano_model(architecture, DTYPES[config.dtype], attention, seed), tokenizer, template, (note,)


def _read_base(
    config: ModelConfig, execution: ExecutionConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, tuple[str, ...]]:
    from transformers import AutoModelForCausalLM

    if config.source == SMOLLM2:
        from alpaca_farm_core.models.smollm2 import load_smollm2

        model, tokenizer = load_smollm2(DTYPES[config.dtype])
        attention, note = describe_attention(execution, model.config, DTYPES[config.dtype])
        model.set_attn_implementation(attention)
        return model, tokenizer, (note,)
    if is_local(config.source):
        check_model_folder(Path(config.source).expanduser())
    keywords = {"revision": config.revision or "main", "trust_remote_code": config.trust_remote_code}
    source = str(Path(config.source).expanduser()) if is_local(config.source) else config.source
    return read_pretrained(AutoModelForCausalLM, source, DTYPES[config.dtype], execution, keywords)


def _read_ours(auto_class: Any, folder: Path, execution: ExecutionConfig) -> LoadedModel:
    check_model_folder(folder)
    with without_progress_bars():
        model, tokenizer, notes = read_pretrained(auto_class, str(folder), None, execution, {})
    template = PromptTemplate.load(folder)
    return LoadedModel(model.to(choose_device(execution)).eval(), tokenizer, template, notes)


def check_positions(architecture: PreTrainedConfig, max_length: int, name: str) -> None:
    """Check that sequences of `max_length` tokens have a place.

    Raises:
        ModelError: the model has fewer positions; it is called `name`.
    """
    positions = getattr(architecture.get_text_config(), "max_position_embeddings", None)
    if positions and max_length > positions:
        raise ModelError(
            f"max_length {max_length} exceeds the {positions} positions of '{name}'.",
            f"Set max_length to at most {positions}.",
        )


def _save(loaded: LoadedModel, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with without_progress_bars():
        loaded.model.save_pretrained(folder)
    for name in _OF_THIS_MACHINE:
        loaded.tokenizer.init_kwargs.pop(name, None)
    loaded.tokenizer.save_pretrained(folder)
    loaded.template.save(folder)
