"""Special tokens and chat templates: every model gets a pad token that is not EOS.

Padding with EOS would make sequence classifiers skip a real EOS, and would hide it from training. Model and
tokenizer are changed in place; what was changed is returned in words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from alpaca_farm_core.data.prompts import CHAT, PromptTemplate, load_template
from alpaca_farm_core.data.tokenise import adds_bos
from alpaca_farm_core.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAD = "<|pad|>"
_PAD_NAMES = ("<pad>", "[PAD]", PAD, "<|PAD|>", "<|finetune_right_pad_id|>", "<|padding|>", "<PAD>")


def ensure_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Make sure of EOS and of a pad token different from it, and write both into the model's configs.

    A token whose name says that it is for padding is reused; otherwise "<|pad|>" is added, and its rows
    of the input and output embeddings are the mean of the old rows.

    Returns:
        What was done, in words; empty when nothing had to be done.

    Raises:
        ModelError: the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "The tokenizer has no EOS token, so no answer could ever end.",
            "Set `eos_token` in its tokenizer_config.json to the token that ends an answer.",
        )
    notes: tuple[str, ...] = ()
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        notes = (_choose_pad(tokenizer),)
    _cover_vocabulary(model, tokenizer)
    _write_ids(model, tokenizer)
    return notes


def add_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> None:
    """Add special tokens that prompts may hold and answers may not: generation suppresses them.

    Their rows of the input and output embeddings are the mean of the old tokens' rows.

    Raises:
        ModelError: the tokenizer has one of them already.
    """
    known = tokenizer.get_vocab()
    taken = [token for token in tokens if token in known]
    if taken:
        raise ModelError(f"The tokenizer has a token {taken[0]!r} already.", "Choose another text for the new token.")
    n_old = len(tokenizer)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    _cover_vocabulary(model, tokenizer)
    # A model may have more rows than its tokenizer has tokens; those were never trained.
    with torch.no_grad():
        for embedding in _embeddings(model):
            weight = embedding.weight
            weight[n_old : len(tokenizer)] = weight[:n_old].float().mean(dim=0).to(weight.dtype)
    settings = model.generation_config
    if settings is not None:
        settings.suppress_tokens = [*(settings.suppress_tokens or []), *range(n_old, len(tokenizer))]


def resolve_template(name_or_path: str, tokenizer: PreTrainedTokenizerBase | None) -> PromptTemplate:
    """Load a template by name or path; 'chat' asks the tokenizer for its own.

    Raises:
        ModelError: 'chat', and the tokenizer has no chat template or one that changes the user's text.
        DataError: no such template.
    """
    if name_or_path != CHAT:
        return load_template(name_or_path)
    if tokenizer is None or not tokenizer.chat_template:
        raise ModelError(
            "Template 'chat' was asked for, but the tokenizer has no chat template.", "Use template 'alpaca'."
        )
    return _template_of_chat(tokenizer)


def set_chat_template(tokenizer: PreTrainedTokenizerBase, name_or_path: str, template: PromptTemplate) -> None:
    """Give the tokenizer a chat template that renders one user turn as `template` does ('chat' keeps its own)."""
    if name_or_path != CHAT:
        tokenizer.chat_template = template.chat_template(bos=adds_bos(tokenizer))


def follow_template(tokenizer: PreTrainedTokenizerBase, before: PromptTemplate, after: PromptTemplate) -> None:
    """Change the tokenizer's chat template as its prompt template has changed by an ending.

    A chat template that was made from `before` is made anew from `after`; any other one gets the ending
    behind its generation prompt.
    """
    bos = adds_bos(tokenizer)
    if tokenizer.chat_template == before.chat_template(bos=bos):
        tokenizer.chat_template = after.chat_template(bos=bos)
    elif tokenizer.chat_template:
        ending = json.dumps(after.without_input.removeprefix(before.without_input))
        tokenizer.chat_template += f"{{%- if add_generation_prompt %}}{{{{- {ending} }}}}{{%- endif %}}"


def _template_of_chat(tokenizer: PreTrainedTokenizerBase) -> PromptTemplate:
    """Render one user turn around a mark and read the text before and behind it as a template."""
    mark = "MARKOFTHEUSERTEXT"
    rendered = str(
        tokenizer.apply_chat_template([{"role": "user", "content": mark}], add_generation_prompt=True, tokenize=False)
    )
    before, found, behind = rendered.partition(mark)
    if not found or mark in behind:
        raise ModelError(
            "The tokenizer's chat template does not show the user's text exactly once.", "Use another template."
        )
    if adds_bos(tokenizer):
        before = before.removeprefix(str(tokenizer.bos_token))
    return PromptTemplate(
        with_input=f"{before}{{instruction}}\n\n{{input}}{behind}", without_input=f"{before}{{instruction}}{behind}"
    )


def _choose_pad(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_tokens) | {str(token) for token in tokenizer.added_tokens_decoder.values()}
    for name in _PAD_NAMES:
        if name in vocabulary and name in special and name != tokenizer.eos_token:
            tokenizer.pad_token = name
            return f"pad token: {name} (the tokenizer had none of its own)"
    tokenizer.add_special_tokens({"pad_token": PAD})
    return f"pad token: {PAD} added (the tokenizer had none different from EOS)"


def _cover_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add embedding rows when the tokenizer has more tokens than the model; each is the mean of the old rows."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    if len(tokenizer) <= rows:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for embedding in _embeddings(model):
            embedding.weight[rows:] = embedding.weight[:rows].float().mean(dim=0).to(embedding.weight.dtype)
            if getattr(embedding, "bias", None) is not None:
                embedding.bias[rows:] = embedding.bias[:rows].mean()


def _embeddings(model: PreTrainedModel) -> list[Any]:
    """Input and output embeddings, once when they are tied."""
    pair = [model.get_input_embeddings(), model.get_output_embeddings()]
    return pair[:1] if pair[1] is None or pair[1].weight is pair[0].weight else pair


def _write_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Servers stop at the EOS of the generation config; classifiers skip the pad of the model config."""
    for config in (model.config, model.config.get_text_config(), getattr(model, "generation_config", None)):
        if config is not None:
            config.pad_token_id = tokenizer.pad_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.bos_token_id = tokenizer.bos_token_id
