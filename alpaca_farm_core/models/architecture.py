"""The sizes of a decoder, read from its config.json; nothing is loaded. No torch here.

In: a model's settings, a folder, or the parsed config. Out: sizes, and how many parameters they come to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json
from alpaca_farm_core.models.config import NANO, SMOLLM2, ModelConfig
from alpaca_farm_core.models.external import is_local

_PLAIN_FEED_FORWARD = ("gpt2", "gpt_neox", "gptj", "opt", "bloom", "phi", "mpt", "falcon", "starcoder2")
OWN_BLOCKS = ("llama", "mistral", "qwen2", "qwen3")
"""Kinds that `models.blocks` runs."""
_SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a decoder.

    Attributes:
        hidden: Width of the residual stream.
        layers: Blocks.
        query_width: Heads × width of a head.
        key_width: Key/value heads × width of a head.
        feed_forward: Width of the feed-forward blocks.
        gated: Whether these have a gate (three matrices instead of two).
        vocabulary: Rows of the embeddings.
        tied: Whether the head is the embedding.
        own_blocks: Whether packed rows go through the blocks of `models.blocks`, which keep less for the gradient
            (of another activation than silu not as much: taken for others).
    """

    hidden: int
    layers: int
    query_width: int
    key_width: int
    feed_forward: int
    gated: bool
    vocabulary: int
    tied: bool
    own_blocks: bool = False

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers of a block, by Llama's names."""
        hidden, wide = self.hidden, self.feed_forward
        gate = {"gate_proj": (hidden, wide)} if self.gated else {}
        return {
            "q_proj": (hidden, self.query_width),
            "k_proj": (hidden, self.key_width),
            "v_proj": (hidden, self.key_width),
            "o_proj": (self.query_width, hidden),
            **gate,
            "up_proj": (hidden, wide),
            "down_proj": (wide, hidden),
        }

    @property
    def block(self) -> int:
        """Parameters of the linear layers of a block (norms and biases are left out)."""
        return sum(rows * columns for rows, columns in self.linear_layers.values())

    @property
    def embedding(self) -> int:
        """Parameters of the embeddings."""
        return self.vocabulary * self.hidden

    @property
    def backbone(self) -> int:
        """Parameters without the head, where that is one of its own."""
        return self.embedding + self.layers * (self.block + 2 * self.hidden) + self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the causal LM."""
        return self.backbone + (0 if self.tied else self.embedding)

    @classmethod
    def from_config(cls, described: Mapping[str, Any]) -> Architecture | None:
        """Read a parsed config.json; None where it lacks a size (an architecture that is built otherwise)."""
        text = described.get("text_config") or described

        def find(*names: str) -> int:
            return next((int(text[name]) for name in names if text.get(name)), 0)

        hidden, heads = find("hidden_size", "n_embd", "d_model"), find("num_attention_heads", "n_head", "n_heads")
        layers, vocabulary = find("num_hidden_layers", "n_layer", "n_layers"), find("vocab_size")
        if not (hidden and heads and layers and vocabulary):
            return None
        width = find("head_dim") or hidden // heads
        tied = text.get("tie_word_embeddings", text.get("model_type") in ("gpt2", "gemma", "gemma2", "gemma3_text"))
        return cls(
            hidden,
            layers,
            heads * width,
            (find("num_key_value_heads") or heads) * width,
            find("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden,
            text.get("model_type") not in _PLAIN_FEED_FORWARD,
            vocabulary,
            bool(tied),
            text.get("model_type") in OWN_BLOCKS and text.get("hidden_act", "silu") in ("silu", "swish"),
        )


def architecture_in(folder: Path) -> Architecture | None:
    """Sizes of the model in a folder; None where it has no config.json, or one that is not understood."""
    path = folder / "config.json"
    return Architecture.from_config(read_json(path)) if path.is_file() else None


def base_architecture(config: ModelConfig) -> Architecture | None:
    """Sizes of a base model; None for a hub id that has not been downloaded. Asks no network."""
    if config.source == NANO:
        nano = config.nano
        sizes = (nano.hidden_size, nano.layers, nano.hidden_size, nano.hidden_size, nano.intermediate_size)
        return Architecture(*sizes, gated=True, vocabulary=nano.vocab_size, tied=True, own_blocks=True)
    if config.source == SMOLLM2:
        return Architecture.from_config(_SMOLLM2)
    if is_local(config.source):
        return architecture_in(Path(config.source).expanduser())
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.source, "config.json", revision=config.revision or "main")
    return architecture_in(Path(found).parent) if isinstance(found, str) else None
