"""Sampled responses and what models say about them, on a grid of responses × response positions.

Token ids in, tensors [N, R] out: N responses, R response positions, index 0 the first response token
whatever the length of its prompt. Passes run in token-budget micro-batches of rows of similar length, so
neither prompts nor responses are padded to the longest of the rollout.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from alpaca_farm_core.data.collate import Batch, collate, token_budget_micro_batches
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.generation.scoring import reads_eos, score
from alpaca_farm_core.models.backbone import before, hidden_states
from alpaca_farm_core.models.logprobs import TokenScores, logprobs_and_states, response_logprobs
from alpaca_farm_core.models.sharding import whole_tensor
from alpaca_farm_core.training.masking import masked_fill_zero

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpaca_farm_core.models.heads import ValueHead, ValueModel


@dataclass(frozen=True)
class Responses:
    """N sampled responses; EOS is the last token of the finished ones.

    Attributes:
        prompt_ids: What was answered.
        response_ids: The answers.
        finished: Whether they ended.
        logprobs: Of each token as it was drawn; None where a copy of the policy drew it.
        entropies: In nats, of what each token was drawn from; likewise.
    """

    prompt_ids: list[list[int]]
    response_ids: list[list[int]]
    finished: list[bool]
    logprobs: list[list[float]] | None = None
    entropies: list[list[float]] | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.response_ids)

    def drawn_scores(self, width: int, device: torch.device) -> TokenScores | None:
        """What decoding knew of the tokens, grids [N, width], 0 behind the end of a response; None if nothing."""
        if self.logprobs is None or self.entropies is None:
            return None
        columns = [
            [[*row, *[0.0] * (width - len(row))] for row in values] for values in (self.logprobs, self.entropies)
        ]
        return TokenScores(*(torch.tensor(column, device=device) for column in columns))

    def width(self, rows: Sequence[int] | None = None) -> int:
        """Tokens of the longest response (of `rows`)."""
        return max(len(self.response_ids[row]) for row in (range(len(self)) if rows is None else rows))

    def mask_NR(self, width: int, device: torch.device) -> Tensor:
        """True at response tokens, [N, width]."""
        lengths = torch.tensor([len(response) for response in self.response_ids], device=device)
        return torch.arange(width, device=device)[None, :] < lengths[:, None]


class MicroBatch(NamedTuple):
    """Some rows of a rollout, right-padded: which rows, their tensors, and where their responses begin.

    One that is not `counted` is passed through the model for the sake of other processes only.
    """

    rows: list[int]
    batch: Batch
    starts_B: Tensor
    width: int
    counted: bool = True

    def on_grid(self, values_BT: Tensor, shift: int = 0) -> Tensor:
        """Cut values aligned with the tokens to [B, width]; shift −1 takes those of the position before."""
        index = self.starts_B[:, None] + torch.arange(self.width, device=values_BT.device)[None, :] + shift
        return values_BT.gather(1, index.clamp(max=values_BT.shape[1] - 1))


@dataclass(frozen=True)
class Passes:
    """How forward passes over responses are run.

    Attributes:
        device: Where the models are.
        pad_id: Token of the padding.
        micro_batch_tokens: Tokens of one pass.
        arithmetic: Makes the context of a pass (autocast or nothing).
        padded: Whether padding counts as tokens of a pass; false where rows are packed.
        passes_of_all: From the passes of this process to those of each, where they must be as many.
    """

    device: torch.device
    pad_id: int
    micro_batch_tokens: int
    arithmetic: Callable[[], Any]
    padded: bool = True
    passes_of_all: Callable[[int], int] = int

    def micro_batches(self, responses: Responses, rows: Sequence[int] | None = None) -> Iterator[MicroBatch]:
        """Cut (some rows of) a rollout into micro-batches."""
        chosen = list(range(len(responses)) if rows is None else rows)
        units = [[row] for row in chosen] if self.padded else self._by_prompt(responses, chosen)
        lengths = [self._tokens(responses, unit) for unit in units]
        groups = token_budget_micro_batches(lengths, self.micro_batch_tokens, self.padded)
        idle = self.passes_of_all(len(groups)) - len(groups)
        for group in groups:
            yield self.micro_batch(responses, [row for index in group for row in units[index]])
        for _ in range(idle):
            yield self.micro_batch(responses, [0])._replace(counted=False)

    def _by_prompt(self, responses: Responses, rows: Sequence[int]) -> list[list[int]]:
        """Rows of one prompt together, which is then computed once, as many as a pass holds."""
        units: dict[tuple[int, ...], list[list[int]]] = {}
        for row in rows:
            parts = units.setdefault(tuple(responses.prompt_ids[row]), [[]])
            if parts[-1] and self._tokens(responses, [*parts[-1], row]) > self.micro_batch_tokens:
                parts.append([])
            parts[-1].append(row)
        return [part for parts in units.values() for part in parts]

    def _tokens(self, responses: Responses, rows: Sequence[int]) -> int:
        """Tokens of rows that have one prompt."""
        return len(responses.prompt_ids[rows[0]]) + sum(len(responses.response_ids[row]) for row in rows)

    def micro_batch(self, responses: Responses, rows: list[int]) -> MicroBatch:
        """Put rows of a rollout into one batch."""
        prompts = [responses.prompt_ids[row] for row in rows]
        batch = collate(prompts, [responses.response_ids[row] for row in rows], self.pad_id)
        starts_B = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        return MicroBatch(rows, batch.to(self.device), starts_B, responses.width(rows))

    def token_scores(
        self,
        policy: PreTrainedModel,
        part: MicroBatch,
        temperature: float,
        entropy_grad: bool = False,
        entropies: bool = True,
    ) -> TokenScores:
        """Log-probabilities and entropies of the response tokens of a micro-batch, [B, width] each; gradients flow.

        They flow through the entropies only with `entropy_grad`; without `entropies` those are 0, and cost nothing.
        """
        with self.arithmetic():
            scores = response_logprobs(
                policy,
                part.batch.input_ids_BT,
                part.batch.attention_mask_BT,
                part.batch.response_mask_BT,
                temperature,
                entropy_grad=entropy_grad,
                entropies=entropies,
            )
        return TokenScores(*(part.on_grid(values) for values in scores))

    def scores_and_values(
        self, policy: PreTrainedModel, head: ValueHead, part: MicroBatch, temperature: float, entropies: bool = True
    ) -> tuple[TokenScores, Tensor]:
        """`token_scores`, and values of the policy's states before each response token, from one pass."""
        batch = part.batch
        with self.arithmetic():
            scores, hidden_BTD = logprobs_and_states(
                policy, batch.input_ids_BT, batch.attention_mask_BT, batch.response_mask_BT, temperature, entropies
            )
        on_grid = TokenScores(*(part.on_grid(values) for values in scores))
        return on_grid, part.on_grid(head(hidden_BTD), shift=-1)

    def states(self, policy: PreTrainedModel, part: MicroBatch) -> Tensor:
        """Hidden states before each response token, [B, width, D]; gradients flow."""
        with self.arithmetic():
            hidden_BTD = hidden_states(
                policy, part.batch.input_ids_BT, part.batch.attention_mask_BT, before(part.batch.response_mask_BT)
            )
        places_BR = part.starts_B[:, None] + torch.arange(part.width, device=self.device)[None, :] - 1
        places_BR = places_BR.clamp(max=hidden_BTD.shape[1] - 1)
        return hidden_BTD.gather(1, places_BR[:, :, None].expand(-1, -1, hidden_BTD.shape[2]))

    def values(self, critic: ValueModel, part: MicroBatch) -> Tensor:
        """Values of the states before each response token, [B, width]; gradients flow."""
        with self.arithmetic():
            values_BT = critic(
                part.batch.input_ids_BT, part.batch.attention_mask_BT, before(part.batch.response_mask_BT)
            )
        return part.on_grid(values_BT, shift=-1)

    @torch.no_grad()
    def all_token_scores(
        self, policy: PreTrainedModel, responses: Responses, temperature: float, width: int, entropies: bool = True
    ) -> TokenScores:
        """Score all responses; grids [N, width], 0 behind the end of a response."""

        def run(part: MicroBatch) -> TokenScores:
            return self.token_scores(policy, part, temperature, entropies=entropies)

        return TokenScores(*self._grids(responses, width, 2, run))

    @torch.no_grad()
    def all_scores_and_values(
        self, policy: PreTrainedModel, head: ValueHead, responses: Responses, temperature: float, width: int
    ) -> tuple[TokenScores, Tensor]:
        """`all_token_scores`, and the values of the policy's own states, [N, width], from one pass."""

        def run(part: MicroBatch) -> tuple[Tensor, ...]:
            scores, values = self.scores_and_values(policy, head, part, temperature)
            return *scores, values

        logprobs, entropies, values = self._grids(responses, width, 3, run)
        return TokenScores(logprobs, entropies), values

    @torch.no_grad()
    def all_values(
        self, critic: ValueModel, responses: Responses, width: int, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Values before each response token (of `rows`), grid [N, width], 0 elsewhere."""
        (values,) = self._grids(responses, width, 1, lambda part: (self.values(critic, part),), rows)
        return values

    def rewards(self, reward_model: PreTrainedModel, responses: Responses, with_eos: bool = True) -> list[float]:
        """Rewards at the end of each response; EOS is shown if `with_eos` and the reward model reads it."""
        show = with_eos and reads_eos(reward_model)
        texts = [
            ids if show or not finished else ids[:-1]
            for ids, finished in zip(responses.response_ids, responses.finished, strict=True)
        ]
        with self.arithmetic():
            return score(
                reward_model, responses.prompt_ids, texts, self.pad_id, self.micro_batch_tokens, self.passes_of_all
            )

    def _grids(
        self,
        responses: Responses,
        width: int,
        n_grids: int,
        run: Callable[[MicroBatch], tuple[Tensor, ...]],
        rows: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """Put what `run` gives for each micro-batch, [B, its width] each, on grids of all responses."""
        grids = [torch.zeros(len(responses), width, device=self.device) for _ in range(n_grids)]
        for part in self.micro_batches(responses, rows):
            found = run(part)
            if part.counted:
                for grid, values in zip(grids, found, strict=True):
                    grid[part.rows, : part.width] = values
        mask = responses.mask_NR(width, self.device)
        return [masked_fill_zero(grid, mask) for grid in grids]


class Sampler:
    """Draws responses from a policy in training.

    In bfloat16 it keeps a bfloat16 copy for decoding, refreshed on each call: casting all weights at every
    decode step, as autocast would, costs more than decoding. Of a policy that will be sharded it keeps a whole copy:
    processes decode different numbers of tokens, so none may need the others' weights for one.
    """

    def __init__(
        self, policy: PreTrainedModel, bfloat16: bool, eos_id: int, pad_id: int, batch_size: int, sharded: bool = False
    ) -> None:
        self._policy = policy
        self._copy: nn.Module | None = copy.deepcopy(policy).eval() if bfloat16 or sharded else None
        if self._copy is not None and bfloat16:
            self._copy.bfloat16()
        self._eos_id, self._pad_id, self._batch_size = eos_id, pad_id, batch_size

    def sample(self, prompts: list[list[int]], seeds: list[int], params: SamplingParams) -> Responses:
        """One response per prompt; a row's draws depend on its seed only. Scores are noted unless a copy decodes."""
        model: Any = self._policy
        training = model.training
        if self._copy is not None:
            self._refresh()
            model = self._copy
        model.eval()
        own = self._copy is None
        completions = generate(
            model, prompts, seeds, params, self._eos_id, self._pad_id, self._batch_size, entropies=own
        )
        self._policy.train(training)
        responses = Responses(prompts, [c.token_ids for c in completions], [c.finished for c in completions])
        if not own:
            return responses
        return replace(
            responses, logprobs=[c.logprobs for c in completions], entropies=[c.entropies for c in completions]
        )

    @torch.no_grad()
    def _refresh(self) -> None:
        assert self._copy is not None
        for mine, theirs in zip(self._copy.parameters(), self._policy.parameters(), strict=True):
            mine.copy_(whole_tensor(theirs))
