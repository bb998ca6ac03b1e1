"""Texts in, token ids out.

Prompt and response are tokenised apart and concatenated, so training and decoding see the same ids.
Prompts carry BOS exactly when the tokenizer adds it by itself, never EOS; responses carry no BOS, and EOS
exactly when they are finished. What is longer than the context is dropped and counted, never cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.types import Instruction

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer begins plain text with BOS by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]


def encode_prompts(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Tokenise prompts: with BOS iff the tokenizer adds it, without EOS.

    Special tokens written in the text (as chat templates do) become those tokens.
    """
    if not texts:
        return []
    start = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return [[*start, *ids] for ids in encoded]


def encode_responses(tokenizer: PreTrainedTokenizerBase, texts: list[str], finished: Sequence[bool]) -> list[list[int]]:
    """Tokenise responses: without BOS; EOS is appended exactly where `finished`.

    Special tokens written in the text stay text, so an answer that spells EOS does not end there.
    """
    if len(texts) != len(finished):
        raise ValueError(f"{len(texts)} responses but {len(finished)} finished flags")
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, split_special_tokens=True)
    end = [int(tokenizer.eos_token_id)]
    return [[*ids, *(end if done else [])] for ids, done in zip(encoded["input_ids"], finished, strict=True)]


@dataclass(frozen=True)
class TokenisedRows:
    """Rows that fit the context.

    Attributes:
        prompt_ids: One list per kept row.
        response_ids: The same for responses; empty lists where only prompts were asked for.
        kept: Index of each kept row in the rows given.
        n_too_long: Rows dropped because they exceed the context.
    """

    prompt_ids: list[list[int]] = field(default_factory=list)
    response_ids: list[list[int]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    n_too_long: int = 0

    def __len__(self) -> int:
        """Return the number of kept rows."""
        return len(self.kept)


def tokenise_prompts(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Sequence[Instruction], max_tokens: int
) -> TokenisedRows:
    """Tokenise the prompts of `rows` and keep those of at most `max_tokens` tokens.

    Raises:
        DataError: no prompt fits.
    """
    prompts = encode_prompts(tokenizer, [template.render(row.instruction, row.input) for row in rows])
    return _keep_fitting(prompts, [[] for _ in prompts], max_tokens)


def tokenise_demonstrations(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Sequence[Instruction], max_tokens: int
) -> TokenisedRows:
    """Tokenise prompts and demonstrations (closed by EOS); keep rows of at most `max_tokens` tokens together.

    Raises:
        DataError: no row fits.
    """
    prompts = [template.render(row.instruction, row.input) for row in rows]
    return tokenise_responses(tokenizer, prompts, [row.output for row in rows], [True] * len(rows), max_tokens)


def tokenise_responses(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    outputs: Sequence[str],
    finished: Sequence[bool],
    max_tokens: int,
) -> TokenisedRows:
    """Tokenise rendered prompts and their responses (EOS where finished); keep rows of at most `max_tokens` tokens.

    Raises:
        DataError: no row fits.
    """
    responses = encode_responses(tokenizer, list(outputs), finished)
    return _keep_fitting(encode_prompts(tokenizer, list(prompts)), responses, max_tokens)


def _keep_fitting(prompts: list[list[int]], responses: list[list[int]], max_tokens: int) -> TokenisedRows:
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    kept = [index for index, length in enumerate(lengths) if length <= max_tokens]
    if lengths and not kept:
        raise DataError(
            f"None of the {len(lengths)} rows fits into {max_tokens} tokens (the shortest has {min(lengths)}).",
            "Raise the token limits, or choose a shorter prompt template.",
        )
    return TokenisedRows(
        [prompts[index] for index in kept], [responses[index] for index in kept], kept, len(lengths) - len(kept)
    )
