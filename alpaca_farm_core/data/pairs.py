"""Preferences as token ids: annotated pairs in, pairs that can be trained on out, with everything left out counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alpaca_farm_core.data.prompts import PromptTemplate
from alpaca_farm_core.data.tokenise import encode_prompts, encode_responses
from alpaca_farm_core.types import Preference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class TokenisedPairs:
    """Pairs that fit the context; all lists have one entry per pair.

    Attributes:
        rows: The preference rows.
        numbers: Their places among the rows given.
        prompt_ids: Their prompts.
        response_1_ids: First responses (with EOS where finished, if EOS is read).
        response_2_ids: Second responses.
        n_too_long: Pairs dropped because one side exceeds the context.
    """

    rows: list[Preference] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    prompt_ids: list[list[int]] = field(default_factory=list)
    response_1_ids: list[list[int]] = field(default_factory=list)
    response_2_ids: list[list[int]] = field(default_factory=list)
    n_too_long: int = 0

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.rows)

    def target(self, index: int) -> float:
        """Soft label: 0 = output_1 is better, 1 = output_2, 0.5 = tie."""
        preference = self.rows[index].preference
        assert preference is not None
        return preference - 1

    def tokens(self, index: int, padded: bool = True) -> int:
        """Tokens of both sides in a forward pass: padded to the longer one, or packed, with the prompt once."""
        prompt, first, second = (len(ids[index]) for ids in (self.prompt_ids, self.response_1_ids, self.response_2_ids))
        return 2 * (prompt + max(first, second)) if padded else prompt + first + second


def tokenise_pairs(
    tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, rows: Sequence[Preference], max_tokens: int, eos: bool
) -> TokenisedPairs:
    """Tokenise prompts and both responses; keep pairs whose both sides fit `max_tokens`.

    Args:
        tokenizer: The policy's.
        template: The policy's.
        rows: Annotated pairs.
        max_tokens: Prompt and response together, at most.
        eos: Append EOS to finished responses.
    """
    prompts = encode_prompts(tokenizer, [template.render(row.instruction, row.input) for row in rows])
    first = encode_responses(tokenizer, [row.output_1 for row in rows], [eos and row.finished_1 for row in rows])
    second = encode_responses(tokenizer, [row.output_2 for row in rows], [eos and row.finished_2 for row in rows])
    pairs = TokenisedPairs()
    columns = zip(rows, prompts, first, second, strict=True)
    for number, (row, prompt, response_1, response_2) in enumerate(columns):
        if len(prompt) + max(len(response_1), len(response_2)) > max_tokens:
            pairs.n_too_long += 1
            continue
        pairs.rows.append(row)
        pairs.numbers.append(number)
        pairs.prompt_ids.append(prompt)
        pairs.response_1_ids.append(response_1)
        pairs.response_2_ids.append(response_2)
    return pairs
