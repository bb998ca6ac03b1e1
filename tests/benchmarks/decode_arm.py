"""One side of the decoding table, as a command: JOB.json → one line of JSON.

The job names the side (`ours`, `generate`, or `bare`: forward passes alone), the model, the task and the batch
size. Both sides get the same weights, prompts and forced lengths: a response ends after its row's number of
tokens, which neither side knows before. Only the decoding is timed, after a small warm-up.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StoppingCriteria, StoppingCriteriaList

from alpaca_farm_core.generation.cache import make_cache
from alpaca_farm_core.generation.engine import generate
from alpaca_farm_core.generation.sampling import SamplingParams

MAX_NEW_TOKENS = 256
MEAN_TOKENS = MAX_NEW_TOKENS / 3
SHORTEST_PROMPT, LONGEST_PROMPT = 10, 200
PAD = 0
SIZES = {
    "nano": {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "heads": 4},
    "llama18m": {
        "vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "heads": 6,
    },
}  # fmt: skip


class Ends(StoppingCriteria):  # type: ignore[misc]
    """Each row of a batch of transformers ends after its own number of tokens."""

    def __init__(self, prompt_width: int, lengths: list[int]) -> None:
        self._width, self._lengths_B = prompt_width, torch.tensor(lengths)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """True at rows that are done."""
        return input_ids.shape[1] - self._width >= self._lengths_B


def load(name: str) -> Any:
    """A random Llama of a fixed seed, or SmolLM2-135M."""
    if name == "smollm2":
        from alpaca_farm_core.models.smollm2 import load_smollm2

        return load_smollm2(torch.float32)[0].eval()
    sizes = dict(SIZES[name])
    heads = sizes.pop("heads")
    config = LlamaConfig(
        **sizes, num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=1024,
        tie_word_embeddings=True, pad_token_id=PAD, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def workload(rows: int, samples: int) -> tuple[list[list[int]], list[int]]:
    """Prompts (each `samples` times, random tokens, 10–200 of them) and lengths, geometric and cut at the maximum."""
    draw = random.Random(0)
    prompts = []
    for _ in range(rows // samples):
        length = draw.randint(SHORTEST_PROMPT, LONGEST_PROMPT)
        prompts += [[draw.randrange(3, 2000) for _ in range(length)]] * samples
    p = _stop_probability()
    lengths = [min(MAX_NEW_TOKENS, 1 + int(math.log(1 - draw.random()) / math.log(1 - p))) for _ in prompts]
    return prompts, lengths


def _stop_probability() -> float:
    """Chance to end at each token for which lengths cut at the maximum have the wanted mean."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        longer = (1 - (1 - middle) ** MAX_NEW_TOKENS) / middle > MEAN_TOKENS
        low, high = (middle, high) if longer else (low, middle)
    return low


def run_ours(model: Any, prompts: list[list[int]], lengths: list[int], batch_size: int) -> int:
    """Decode with this project's engine; returns the number of tokens."""
    params = SamplingParams(MAX_NEW_TOKENS)
    seeds = list(range(len(prompts)))
    done = generate(model, prompts, seeds, params, eos_id=-1, pad_id=PAD, batch_size=batch_size, limits=lengths)
    assert [len(completion.token_ids) for completion in done] == lengths
    return sum(lengths)


@torch.no_grad()
def run_generate(model: Any, prompts: list[list[int]], lengths: list[int], batch_size: int, samples: int) -> int:
    """Decode with `generate`: prompts sorted by length, left-padded, `samples` sequences of each."""
    starts = range(0, len(prompts), samples)
    order = sorted(starts, key=lambda start: len(prompts[start]))
    per_batch = max(1, batch_size // samples)
    tokens = 0
    for first in range(0, len(order), per_batch):
        group = order[first : first + per_batch]
        width = max(len(prompts[start]) for start in group)
        ids = torch.tensor([[PAD] * (width - len(prompts[start])) + prompts[start] for start in group])
        ends = [lengths[start + sample] for start in group for sample in range(samples)]
        output = model.generate(
            ids, attention_mask=(ids != PAD).long(), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=max(ends), eos_token_id=None, pad_token_id=PAD, num_return_sequences=samples,
            suppress_tokens=[PAD], stopping_criteria=StoppingCriteriaList([Ends(width, ends)]),
        )  # fmt: skip
        assert output.shape == (len(ends), width + max(ends))
        tokens += sum(ends)
    return tokens


@torch.no_grad()
def bare_seconds(model: Any, prompts: list[list[int]], lengths: list[int], batch_size: int, samples: int) -> float:
    """Seconds of forward passes alone: each prompt once, unpadded, and full batches at the mean context."""
    n_prompt_tokens = sum(len(prompt) for prompt in prompts[::samples])
    context = round(n_prompt_tokens / len(prompts[::samples]) + MEAN_TOKENS / 2)
    steps = 30
    block = torch.randint(3, 2000, (batch_size, context - steps // 2))
    few = block[: max(1, batch_size // 8)]
    began = time.perf_counter()
    model(input_ids=few, use_cache=False, logits_to_keep=1)
    prefill = (time.perf_counter() - began) / few.numel() * n_prompt_tokens
    cache, prefilled = make_cache(model.config, batch_size, context + steps), DynamicCache(config=model.config)
    model(input_ids=block, past_key_values=prefilled, use_cache=True, logits_to_keep=1)
    cache.add(prefilled, torch.arange(batch_size), block.shape[1])
    began = time.perf_counter()
    for step in range(steps):
        positions = torch.full((batch_size, 1), block.shape[1] + step)
        model(input_ids=block[:, :1], position_ids=positions, past_key_values=cache.past, use_cache=True)
    return prefill + (time.perf_counter() - began) / steps * sum(lengths) / batch_size


def main() -> None:
    """Run the job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    imports_mb = psutil.Process().memory_info().rss / 2**20
    model = load(job["model"])
    samples, size, side = job["samples"], job["batch_size"], job["side"]
    prompts, lengths = workload(job["rows"], samples)
    state_mb = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    run_ours(model, prompts[:4], [3] * 4, 4)
    run_generate(model, prompts[: 4 * samples], [3] * 4 * samples, 4 * samples, samples)
    began, cpu_began = time.perf_counter(), time.process_time()
    if side == "bare":
        seconds = bare_seconds(model, prompts, lengths, size, samples)
    elif side == "ours":
        run_ours(model, prompts, lengths, size)
        seconds = time.perf_counter() - began
    else:
        run_generate(model, prompts, lengths, size, samples)
        seconds = time.perf_counter() - began
    result = {
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu_began,
        "samples_per_s": len(prompts) / seconds,
        "tokens_per_s": sum(lengths) / seconds,
        "imports_mb": imports_mb,
        "state_mb": state_mb,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
