"""Quark as an algorithm of the on-policy loop: a pool of answers, quantile tokens, likelihood with a KL term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.methods.quark.config import QuarkConfig
from alpaca_farm_core.methods.quark.loss import original_targets, quark_loss
from alpaca_farm_core.methods.quark.pool import Pool, quantiles
from alpaca_farm_core.models.backbone import with_parts
from alpaca_farm_core.models.comparison import Comparison, Head, compare
from alpaca_farm_core.models.logprobs import head_obstacle
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.training.kl import kl_estimate
from alpaca_farm_core.training.on_policy.algorithm import Plain
from alpaca_farm_core.training.on_policy.judged import Judged
from alpaca_farm_core.training.on_policy.setup import Setup
from alpaca_farm_core.training.order import stream_rows
from alpaca_farm_core.training.rollouts import MicroBatch, Responses

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def reward_tokens(config: QuarkConfig) -> tuple[str, ...]:
    """The quantiles' tokens, best first; none when only the best quantile is learnt."""
    return tuple(f"<|reward_{number}|>" for number in range(config.n_quantiles)) if config.train_on == "all" else ()


class Quark(Plain):
    """The pool, and what is learnt from it at each step."""

    title = "Quark"
    uses_reference = True

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.config: QuarkConfig = setup.config
        self.learners = {"policy": setup.policy}
        self.pool = Pool()
        self.pooled = 0
        tokenizer = cast(Any, setup.loaded.tokenizer)
        self.token_ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in reward_tokens(self.config)]
        self.reference_parts = self.config.kl == "exact"
        if self.reference_parts:
            _require_heads(setup)

    def shown(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """Ask for answers of the best quantile, once its token has been learnt at all."""
        if not self.token_ids or not self.pooled:
            return prompt_ids
        return [[*ids, self.token_ids[0]] for ids in prompt_ids]

    def objective(self, judged: Judged, step: int, kl_coef: float) -> PoolObjective:
        """Add the rollout to the pool, sort the pool, and learn from it."""
        config, responses = self.config, judged.responses
        columns = responses.prompt_ids, responses.response_ids, responses.finished, judged.penalised_N.tolist()
        rows = [list(row) for row in zip(*columns, strict=True)]
        if config.clear_pool:
            self.pool.clear()
        self.pool.add(rows if config.paper_compat else self._of_all(rows))
        self.pooled += 1
        return PoolObjective(self, step, kl_coef)

    def _of_all(self, rows: list[list[Any]]) -> list[list[Any]]:
        """The rows of all processes, in the order of their prompts, however many processes there are."""
        workers = self.setup.workers
        placed = [[place * workers.size + workers.rank, row] for place, row in enumerate(rows)]
        return [row for _, row in sorted(workers.gather(placed), key=lambda entry: int(entry[0]))]

    def tensors(self) -> Mapping[str, Any]:
        """The pool."""
        return {"pooled": torch.tensor(self.pooled), "pool": self.pool.state()}

    def restore(self, tensors: Mapping[str, Any]) -> None:
        """Take the pool back."""
        self.pooled, self.pool = int(tensors["pooled"]), Pool.of_state(tensors["pool"])


class PoolObjective:
    """Likelihood of the pool's answers that are learnt at one step."""

    sums = ("policy_loss", "nll", "kl_loss", "learnt_entropy")

    def __init__(self, quark: Quark, step: int, kl_coef: float) -> None:
        self._quark, self._step, self._kl_coef = quark, step, kl_coef
        self._config, self._setup = quark.config, quark.setup
        pool = quark.pool
        found = quantiles(pool.rewards, self._config.n_quantiles, by_rank=self._config.paper_compat)
        rows = [row for row, quantile in enumerate(found) if quark.token_ids or quantile == 0]
        plain = [pool.prompt_ids[row] for row in rows]
        answers = [pool.response_ids[row] for row in rows], [pool.finished[row] for row in rows]
        tokens = [[quark.token_ids[found[row]]] if quark.token_ids else [] for row in rows]
        self.responses = Responses([[*ids, *token] for ids, token in zip(plain, tokens, strict=True)], *answers)
        self._plain = Responses(plain, *answers)
        learnt = [pool.rewards[row] for row in rows]
        self.metrics = {
            "pool_size": float(len(pool)),
            "learnt_share": len(rows) / len(pool),
            "learnt_reward": sum(learnt) / len(learnt),
            "empty_quantiles": float(self._config.n_quantiles - len(set(found))),
        }

    def minibatches(self) -> list[list[int]]:
        """`gradient_steps` minibatches from shuffled passes over the chosen answers."""
        config, workers = self._config, self._setup.workers
        assert config.seed is not None
        n, shared = len(self.responses), not config.paper_compat
        size = min(config.minibatch_size if shared else max(1, config.minibatch_size // workers.size), n)
        seed = stable_seed("quark", config.seed, self._step, *([] if shared else [workers.rank]))
        steps = [stream_rows(n, seed, number * size, size) for number in range(config.gradient_steps)]
        return [workers.share(rows) for rows in steps] if shared else steps

    def weight(self, rows: list[int]) -> Tensor | float:
        """Target tokens (the original: all positions of the window)."""
        if self._config.paper_compat:
            return float(len(rows) * self._config.max_new_tokens)
        return float(sum(len(self.responses.response_ids[row]) for row in rows))

    def backward(self, part: MicroBatch, weight: float) -> dict[str, Tensor]:
        """Gradients of the policy."""
        config = self._config
        mask = self._mask(part)
        terms = self._compare(part, mask)
        targets = mask
        if config.paper_compat:
            finished = torch.tensor([self.responses.finished[row] for row in part.rows], device=mask.device)
            targets = original_targets(mask, finished, config.max_new_tokens)
        result = quark_loss(terms.logprobs, terms.kl, terms.entropies, targets, self._kl_coef, config.entropy_coef)
        (result.loss / weight).backward()  # type: ignore[no-untyped-call]
        return {"policy_loss": result.loss, "nll": result.nll, "kl_loss": result.kl, "learnt_entropy": result.entropy}

    def _mask(self, part: MicroBatch) -> Tensor:
        """True at response tokens, [B, width]."""
        lengths = torch.tensor(
            [len(self.responses.response_ids[row]) for row in part.rows], device=part.starts_B.device
        )
        return torch.arange(part.width, device=lengths.device)[None, :] < lengths[:, None]

    def _compare(self, part: MicroBatch, mask: Tensor) -> Comparison:
        config, setup = self._config, self._setup
        policy, reference = cast("PreTrainedModel", setup.policy.model), setup.reference
        plain = setup.passes.micro_batch(self._plain, part.rows)
        if config.kl == "sampled":
            scores = setup.passes.token_scores(policy, part, config.temperature, entropy_grad=config.entropy_coef > 0)
            with torch.no_grad():
                of_reference = setup.passes.token_scores(reference, plain, config.temperature, entropies=False)
            kl = kl_estimate(scores.logprobs_BT, of_reference.logprobs_BT, "k2")
            return Comparison(scores.logprobs_BT, kl, scores.entropies_BT)
        with torch.no_grad():
            reference_states = setup.passes.states(reference, plain)

        def exact() -> Comparison:
            states = setup.passes.states(policy, part)
            with setup.passes.arithmetic():
                return compare(
                    states,
                    cast(Head, policy.get_output_embeddings()),
                    reference_states,
                    cast(Head, reference.get_output_embeddings()),
                    part.on_grid(part.batch.input_ids_BT),
                    mask,
                    config.temperature,
                )

        return with_parts(policy, exact)


def _require_heads(setup: Setup) -> None:
    obstacle = head_obstacle(setup.reference)
    if obstacle:
        raise ModelError(f"quark.kl = 'exact' needs a plain head, but {obstacle}.", "Set quark.kl to 'sampled'.")
