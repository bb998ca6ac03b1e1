"""Models and rows that the training and decoding tables use, made from seeds alone, as plain folders and JSON files.

A world is a folder: `endless/` (a Llama whose EOS is never drawn: where an answer ends is for the tables to say),
`reward/` (a classifier of the same shape) and `rows.json` (token ids of prompts, responses and pairs, and the same
rows as texts for this project's stages). Both sides of a table read the same files.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

PAD, EOS, UNKNOWN = "[pad]", "[eos]", "[unk]"
LLAMAS = {
    "nano": {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "heads": 4},
    "llama14m": {
        "vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "heads": 6,
    },
}  # fmt: skip
NAMES = (*LLAMAS, "smollm2")
TEMPLATE = {"with_input": "{instruction} {input}", "without_input": "{instruction}"}
N_ROWS = 512
_EOS_CONSTANT = 4.0
"""Value of the first coordinate of every token's embedding: what the EOS row of the head reads."""
_EOS_CHANCE = 1e-9


def make_world(name: str, work: Path) -> Path:
    """Make the world `name` under `work` unless it is there; return its folder."""
    folder = work / name
    if (folder / "rows.json").is_file():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, tokenizer = _smollm2() if name == "smollm2" else _llama(name)
    rows = _rows(tokenizer, 7)
    _never_end(model, tokenizer, rows)
    _save(model, tokenizer, folder / "endless")
    _save(_classifier(folder / "endless"), tokenizer, folder / "reward")
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder


def _llama(name: str) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    sizes = dict(LLAMAS[name])
    heads = int(sizes.pop("heads"))
    words = [PAD, EOS, UNKNOWN, *(f"w{number}" for number in range(int(sizes["vocab_size"]) - 3))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN)
    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes, num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=1024,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # the first coordinate of the residual stream stays what the embedding put there
        model.model.embed_tokens.weight[:, 0] = _EOS_CONSTANT
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
    return model, tokenizer


def _smollm2() -> tuple[Any, Any]:
    from alpaca_farm_core.models.smollm2 import load_smollm2
    from alpaca_farm_core.models.tokens import ensure_special_tokens

    model, tokenizer = load_smollm2(torch.float32)
    ensure_special_tokens(model, tokenizer)
    return model, tokenizer


@torch.no_grad()
def _never_end(model: Any, tokenizer: Any, rows: dict[str, Any]) -> None:
    """Give EOS the row of the tied head for which its chance p to be drawn is about 1e-9 at every position.

    Least squares on what the head sees over random rows: wᵀh ≈ log Σ exp(other logits) + log(p / (1 − p)).
    """
    hidden = []
    for prompt, response in zip(rows["prompts"][:48], rows["responses"][:48], strict=True):
        hidden.append(model.base_model(torch.tensor([prompt + response[:-1]])).last_hidden_state[0])
    hidden_ND = torch.cat(hidden)
    weight_VD: Tensor = model.get_output_embeddings().weight
    eos = tokenizer.eos_token_id
    logits_NV = hidden_ND @ weight_VD.T
    logits_NV[:, eos] = -torch.inf
    wanted_N = logits_NV.logsumexp(1) + math.log(_EOS_CHANCE / (1 - _EOS_CHANCE))
    system = hidden_ND.double().T @ hidden_ND.double()
    ridge = 1e-6 * system.diagonal().mean() * torch.eye(len(system), dtype=torch.float64)
    solution_D = torch.linalg.solve(system + ridge, hidden_ND.double().T @ wanted_N.double())
    weight_VD[eos] = solution_D.float()


def _classifier(model: Path) -> Any:
    config = AutoConfig.from_pretrained(model)
    config.num_labels = 1
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(model, config=config, dtype=torch.float32)


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.generation_config = None if not hasattr(model, "generation_config") else model.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "prompt_template.json").write_text(json.dumps(TEMPLATE))


def _rows(tokenizer: Any, seed: int) -> dict[str, Any]:
    """Texts of random words and their token ids; lengths are lognormal, cut: prompts 8–120, responses 4–300."""
    draw = random.Random(seed)
    words = _words(tokenizer)

    def text(mean: float, low: int, high: int) -> str:
        length = round(min(max(draw.lognormvariate(0, 0.7) * mean, low), high))
        return " ".join(draw.choice(words) for _ in range(length))

    texts = {
        "prompts": [text(35, 8, 120) for _ in range(N_ROWS)],
        "responses": [text(65, 4, 300) for _ in range(N_ROWS)],
        "others": [text(65, 4, 300) for _ in range(N_ROWS)],
    }
    ids = {name: tokenizer(values, add_special_tokens=False)["input_ids"] for name, values in texts.items()}
    for name in ("responses", "others"):
        ids[name] = [[*row, tokenizer.eos_token_id] for row in ids[name]]
    return {**ids, "texts": texts}


def _words(tokenizer: Any) -> list[str]:
    """Words that are one token each wherever they stand."""
    found = []
    for number in range(3, min(len(tokenizer), 12000)):
        word = tokenizer.decode([number]).strip()
        if word.isalnum() and word.isascii() and word not in tokenizer.all_special_tokens:
            twice = tokenizer(f"{word} {word}", add_special_tokens=False)["input_ids"]
            if len(twice) == 2:
                found.append(word)
        if len(found) >= 2000:
            break
    return found


def load(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a part of a world, as transformers reads them."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
