"""Log-probabilities and entropies of given tokens, in chunks, so that [B, T, V] is never held.

The backbone runs once; the head runs over the wanted positions only, a chunk at a time, and in the backward pass once
more for each chunk but the last, whose log-probabilities are kept until then. Models that change their logits behind
the head (soft-capping, scaling) are recognised and go through their own forward, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alpaca_farm_core.models.backbone import (
    backbone_of,
    before,
    evaluating,
    hidden_states,
    plain_hidden_states,
    position_ids,
    takes_position_ids,
    with_parts,
)
from alpaca_farm_core.models.fused import chosen_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_LOGITS = 2**25
"""Logits of one chunk when no chunk size is given: 128 MiB in float32, 160 with a small rest."""

_LOWEST_LOGPROB = -1e4  # stands for −∞ in p·log p, which would be 0·∞
_CHANGES_LOGITS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier")
_known_obstacles: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()

Head = Callable[[Tensor], Tensor]


class TokenScores(NamedTuple):
    """Per-token results, float32; 0 where the mask is false.

    Attributes:
        logprobs_BT: log π(token t | tokens before t).
        entropies_BT: Entropy in nats of the distribution that token t was drawn from; no gradient unless asked for,
            and 0 where the caller does without them.
    """

    logprobs_BT: Tensor
    entropies_BT: Tensor


def response_logprobs(
    model: PreTrainedModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    response_mask_BT: Tensor,
    temperature: float = 1.0,
    chunk: int = 0,
    entropy_grad: bool = False,
    entropies: bool = True,
) -> TokenScores:
    """Score the tokens under `response_mask_BT`, each given the tokens before it.

    Padding may stand on either side and is never computed on by the head.

    Args:
        model: Causal LM.
        input_ids_BT: Tokens.
        attention_mask_BT: 1 at tokens, 0 at padding.
        response_mask_BT: True at the tokens to score; the first real token of a row cannot be scored.
        temperature: Divides the logits (> 0).
        chunk: Positions per run of the head, a quarter more at most; 0 = as many as make CHUNK_LOGITS logits.
        entropy_grad: Keep the graph of the entropies, for an entropy bonus.
        entropies: Compute them; otherwise they are 0, which spares several passes over the logits.

    Returns:
        Tensors aligned with `input_ids_BT`: index t belongs to token t.
    """
    mask_BT = response_mask_BT.bool()
    assert not bool(mask_BT[:, :1].any()), "the first position has nothing before it to be predicted from"
    if head_obstacle(model):
        return _through_forward(
            model, input_ids_BT, attention_mask_BT, mask_BT, temperature, chunk, entropy_grad, entropies
        )

    def score() -> TokenScores:
        hidden_BTD = hidden_states(model, input_ids_BT, attention_mask_BT, before(mask_BT))
        return _from_states(model, hidden_BTD, input_ids_BT, mask_BT, temperature, chunk, entropy_grad, entropies)

    return with_parts(model, score)


def logprobs_and_states(
    model: PreTrainedModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    response_mask_BT: Tensor,
    temperature: float = 1.0,
    entropies: bool = True,
) -> tuple[TokenScores, Tensor]:
    """`response_logprobs` and the states hidden_BTD that they were made of, from one pass; gradients flow through both.

    A model that changes its logits behind the head needs a second pass.
    """
    if head_obstacle(model):
        hidden_BTD = with_parts(model, lambda: hidden_states(model, input_ids_BT, attention_mask_BT))
        scores = response_logprobs(
            model, input_ids_BT, attention_mask_BT, response_mask_BT, temperature, entropies=entropies
        )
        return scores, hidden_BTD
    mask_BT = response_mask_BT.bool()

    def score() -> tuple[TokenScores, Tensor]:
        hidden_BTD = hidden_states(model, input_ids_BT, attention_mask_BT, before(mask_BT))
        return _from_states(model, hidden_BTD, input_ids_BT, mask_BT, temperature, entropies=entropies), hidden_BTD

    return with_parts(model, score)


def token_logprobs(
    hidden_BTD: Tensor,
    head: Head | Tensor,
    targets_BT: Tensor,
    mask_BT: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int = 0,
    entropy_grad: bool = False,
    entropies: bool = True,
) -> TokenScores:
    """Score targets from the hidden states that predict them (no shift here).

    Args:
        hidden_BTD: Hidden state before each target.
        head: Maps [N, D] to logits [N, V]; or the weight of a linear head [V, D].
        targets_BT: Token ids; read under the mask only.
        mask_BT: Positions to score; None = all.
        temperature: Divides the logits (> 0).
        chunk: Positions per run of the head, a quarter more at most; 0 = as many as make CHUNK_LOGITS logits.
        entropy_grad: Keep the graph of the entropies.
        entropies: Compute them; otherwise they are 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature {temperature} must be positive: log-probabilities of greedy choices are 0")
    run = _linear(head) if isinstance(head, Tensor) else head
    mask_BT = torch.ones_like(targets_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
    hidden_ND, targets_N = hidden_BTD[mask_BT], targets_BT[mask_BT]
    chunk = chunk or max(1, CHUNK_LOGITS // _vocabulary(head, hidden_ND))
    sizes = _chunks(len(targets_N), chunk)
    # The backward pass begins with the last chunk, which takes the room then that another would in its place: it need
    # not be computed again, unless entropies with gradients keep several tensors of its size.
    again = [True] * (len(sizes) - 1) + [entropy_grad and len(sizes) > 1]
    parts = [
        _score_chunk(run, part_ND, part_N, temperature, entropy_grad, entropies, again=twice)
        for part_ND, part_N, twice in zip(
            torch.split(hidden_ND, sizes), torch.split(targets_N, sizes), again, strict=True
        )
    ]
    return TokenScores(*(_scatter(mask_BT, torch.cat(column)) for column in zip(*parts, strict=True)))


def head_obstacle(model: PreTrainedModel) -> str:
    """Return why the chunked head cannot be used for this model; empty when it can.

    A tiny forward pass compares the model's logits with head(backbone); the answer is remembered per model.
    """
    if model not in _known_obstacles:
        _known_obstacles[model] = _find_obstacle(model)
    return _known_obstacles[model]


def _from_states(
    model: PreTrainedModel,
    hidden_BTD: Tensor,
    input_ids_BT: Tensor,
    mask_BT: Tensor,
    temperature: float,
    chunk: int = 0,
    entropy_grad: bool = False,
    entropies: bool = True,
) -> TokenScores:
    """Score each token from the state before it."""
    head = cast(Head, model.get_output_embeddings())
    scores = token_logprobs(
        hidden_BTD[:, :-1], head, input_ids_BT[:, 1:], mask_BT[:, 1:], temperature, chunk, entropy_grad, entropies
    )
    return TokenScores(*(nn.functional.pad(scored, (1, 0)) for scored in scores))


def _chunks(count: int, chunk: int) -> list[int]:
    """Sizes of the chunks, the largest last; a quarter of a chunk or less that is left over is not worth its own."""
    whole, rest = divmod(count, chunk)
    if whole and rest <= chunk // 4:
        return [*[chunk] * (whole - 1), chunk + rest]
    return [rest, *[chunk] * whole]


def _score_chunk(
    head: Head,
    hidden_ND: Tensor,
    targets_N: Tensor,
    temperature: float,
    entropy_grad: bool,
    entropies: bool,
    again: bool,
) -> tuple[Tensor, Tensor]:
    """Score one chunk; with `again`, its logits are not kept for the backward pass but computed again."""

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _from_logits(head(hidden), targets, temperature, entropy_grad, entropies)

    if again and torch.is_grad_enabled():
        # The head is linear: there is no random state to save for the second run.
        scored = checkpoint(score, hidden_ND, targets_N, use_reentrant=False, preserve_rng_state=False)
        return cast(tuple[Tensor, Tensor], scored)
    return score(hidden_ND, targets_N)


def _from_logits(
    logits_NV: Tensor, targets_N: Tensor, temperature: float, entropy_grad: bool, entropies: bool
) -> tuple[Tensor, Tensor]:
    """Log softmax(z/τ) at the target, and H = −Σ p log p (0 unless asked for), both in float32."""
    logits_NV = logits_NV.float() / temperature if temperature != 1.0 else logits_NV.float()
    if not entropies:
        chosen_N = chosen_logprobs(logits_NV, targets_N)
        return chosen_N, torch.zeros_like(chosen_N.detach())
    logprobs_NV = torch.log_softmax(logits_NV, dim=-1)
    chosen_N = logprobs_NV.gather(-1, targets_N.unsqueeze(-1)).squeeze(-1)
    return chosen_N, entropy(logprobs_NV if entropy_grad else logprobs_NV.detach())


def entropy(logprobs_NV: Tensor) -> Tensor:
    """H = −Σ p log p in nats over the last dimension; tokens of probability 0 count nothing."""
    return -(logprobs_NV.exp() * logprobs_NV.clamp(min=_LOWEST_LOGPROB)).sum(dim=-1)


def _scatter(mask_BT: Tensor, values_N: Tensor) -> Tensor:
    """Put values where the mask is true, 0 elsewhere."""
    empty_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return empty_BT.masked_scatter(mask_BT, values_N)


def _linear(weight_VD: Tensor) -> Head:
    return lambda hidden_ND: nn.functional.linear(hidden_ND, weight_VD)


def _vocabulary(head: Head | Tensor, hidden_ND: Tensor) -> int:
    """Ask a weight for its rows, and any other head by running it on nothing."""
    weight = head if isinstance(head, Tensor) else getattr(head, "weight", None)
    if isinstance(weight, Tensor):
        return int(weight.shape[0])
    with torch.no_grad():
        return int(cast(Head, head)(hidden_ND[:0]).shape[-1])


def _through_forward(
    model: PreTrainedModel,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    mask_BT: Tensor,
    temperature: float,
    chunk: int,
    entropy_grad: bool,
    entropies: bool,
) -> TokenScores:
    """Score with the model's own logits, as many rows at a time as fit the chunk (never less than one)."""
    length = input_ids_BT.shape[1]
    chunk = chunk or max(1, CHUNK_LOGITS // int(model.config.get_text_config().vocab_size))
    rows = max(1, chunk // max(1, length))
    again = input_ids_BT.shape[0] > rows and torch.is_grad_enabled()

    def score(ids: Tensor, attention: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        logits_BTV = _own_logits(model, ids, attention)[:, :-1]
        wanted = mask[:, 1:]
        return _from_logits(logits_BTV[wanted], ids[:, 1:][wanted], temperature, entropy_grad, entropies)

    parts = []
    for part in zip(*(torch.split(whole, rows) for whole in (input_ids_BT, attention_mask_BT, mask_BT)), strict=True):
        parts.append(checkpoint(score, *part, use_reentrant=False) if again else score(*part))
    return TokenScores(*(_scatter(mask_BT, torch.cat(column)) for column in zip(*parts, strict=True)))


def _own_logits(model: PreTrainedModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
    keywords = {"position_ids": position_ids(attention_mask_BT)} if takes_position_ids(model) else {}
    output = model(
        input_ids=input_ids_BT, attention_mask=attention_mask_BT, use_cache=False, return_dict=True, **keywords
    )
    return cast(Tensor, output.logits)


def _find_obstacle(model: PreTrainedModel) -> str:
    head = model.get_output_embeddings()
    if head is None or backbone_of(model) is model:
        return "the model does not show its backbone and head apart"
    config = model.config.get_text_config()
    changed = [name for name in _CHANGES_LOGITS if getattr(config, name, None) not in (None, 1.0)]
    if changed:
        return f"the model changes its logits behind the head ({', '.join(changed)})"
    return "" if _probe_agrees(model, cast(Head, head)) else "the model's logits are not those of its head"


@torch.no_grad()
def _probe_agrees(model: PreTrainedModel, head: Head) -> bool:
    ids = torch.arange(2, device=model.device).unsqueeze(0)
    with evaluating(model):
        own = _own_logits(model, ids, torch.ones_like(ids))
        # The model's own states: the question is what it does behind them, not how they round here.
        ours = head(plain_hidden_states(backbone_of(model), ids, torch.ones_like(ids)))
    return torch.allclose(own.float(), ours.float(), rtol=1e-5, atol=1e-6)
