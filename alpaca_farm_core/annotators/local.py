"""A judge in this process: a Hugging Face model that compares the log-probability of the possible answers.

In: jobs whose sampling names the answers to compare. Out: each settled by the likeliest answer and the
log-probabilities of all, in the API's layout. No server, no sampling, no seed. Loads a model once, and
scores many prompts at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alpaca_farm_core.annotators.broker import Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ConfigError, ModelError
from alpaca_farm_core.models.config import NANO, ModelConfig
from alpaca_farm_core.models.external import model_hash

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_JOBS_AT_ONCE = 256
_DTYPES = ("float32", "bfloat16")
_NANO_CANNOT_JUDGE = "The nano model is made fresh for each run; it cannot judge."
_OPTIONS = {"answers", "dtype", "temperature", "max_tokens", "logprobs", "top_logprobs"}


def local_model_name(source: str) -> str:
    """Return `source@` and the beginning of its content hash (a hub model's commit): its name in calls.

    Raises:
        ModelError: there is no such model.
    """
    return f"{source}@{model_hash(_model_config(source, 'float32'))[:16]}"


class LocalJudge:
    """Answers jobs by comparing log-probabilities.

    Args:
        execution: Device, kernel, and tokens in one pass.
    """

    def __init__(self, execution: ExecutionConfig) -> None:
        self._execution = execution
        self._loaded: dict[tuple[str, str], tuple[PreTrainedModel, PreTrainedTokenizerBase]] = {}

    def work(self, jobs: Jobs) -> None:
        """Settle all jobs, longest prompts together with their like; a prompt too long for the model fails alone.

        Raises:
            ModelError: the model cannot be loaded.
            ConfigError: a job names no answers to compare.
        """
        while len(jobs):
            for group in _by_model(jobs.take(_JOBS_AT_ONCE)):
                self._settle(jobs, group)

    def _settle(self, jobs: Jobs, requests: Sequence[Request]) -> None:
        answers, dtype = _options(requests[0])
        model, tokenizer = self._load(requests[0].model.partition("@")[0], dtype)
        encoded = {request.key: _encode(request.messages, answers, tokenizer) for request in requests}
        limit = _positions(model)
        fitting = [request for request in requests if max(map(_length, encoded[request.key])) <= limit]
        for request in requests:
            if request not in fitting:
                jobs.fail(request, f"too long: more than the {limit} tokens that {request.model} can read")
        fitting.sort(key=lambda request: max(map(_length, encoded[request.key])))
        for part in _parts([encoded[request.key] for request in fitting], self._execution.micro_batch_tokens):
            chosen = [fitting[index] for index in part]
            scores = answer_logprobs(model, [encoded[request.key] for request in chosen])
            jobs.commit(
                {request.key: _answer(answers, row, request.model) for request, row in zip(chosen, scores, strict=True)}
            )

    def _load(self, source: str, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        from alpaca_farm_core.models.device import choose_device, set_threads
        from alpaca_farm_core.models.loading import read_causal_lm

        if (source, dtype) not in self._loaded:
            set_threads(self._execution)
            model, tokenizer, _ = read_causal_lm(_model_config(source, dtype), self._execution)
            self._loaded[source, dtype] = (model.to(choose_device(self._execution)).eval(), tokenizer)
        return self._loaded[source, dtype]


Encoded = Sequence[tuple[list[int], list[int]]]
"""For each possible answer: the prompt's tokens and the answer's."""


def answer_logprobs(model: PreTrainedModel, encoded: Sequence[Encoded]) -> list[list[float]]:
    """Return log π(answer | prompt), summed over the answer's tokens, for every prompt and answer.

    Args:
        model: Causal LM in eval mode.
        encoded: Prompts, each with the same number of answers.
    """
    import torch

    from alpaca_farm_core.models.logprobs import response_logprobs

    rows = [row for prompt in encoded for row in prompt]
    width = max(map(_length, rows))
    ids_BT = torch.zeros((len(rows), width), dtype=torch.long)
    attention_BT = torch.zeros_like(ids_BT)
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    for index, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids_BT[index, :end] = torch.tensor(prompt + answer)
        attention_BT[index, :end] = 1
        mask_BT[index, len(prompt) : end] = True
    with torch.inference_mode():
        device = model.device
        scored = response_logprobs(model, ids_BT.to(device), attention_BT.to(device), mask_BT.to(device))
        sums: Tensor = scored.logprobs_BT.sum(dim=1)
    flat = [float(value) for value in sums.tolist()]
    n = len(encoded[0])
    return [flat[start : start + n] for start in range(0, len(flat), n)]


def _model_config(source: str, dtype: str) -> ModelConfig:
    config = ModelConfig.build({"source": source, "dtype": dtype}, at="annotator.model")
    if config.source == NANO:
        raise ModelError(_NANO_CANNOT_JUDGE, "Name a trained model's folder.")
    return config


def _options(request: Request) -> tuple[list[str], str]:
    """Read and check what a job's sampling says; everything but answers and dtype has no meaning here."""
    answers, dtype = request.sampling.get("answers"), request.sampling.get("dtype", "float32")
    if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(one, str) and one for one in answers):
        raise ConfigError(
            f"A local judge needs the answers to compare; completions_kwargs.answers is {answers!r}.",
            'Write for example answers: ["(a)", "(b)"].',
        )
    if dtype not in _DTYPES:
        raise ConfigError(f"A local judge cannot run in dtype {dtype!r}.", f"Use one of {', '.join(_DTYPES)}.")
    unknown = sorted(set(request.sampling) - _OPTIONS)
    if unknown:
        raise ConfigError(f"A local judge has no option '{unknown[0]}'.", "Remove it from completions_kwargs.")
    return answers, dtype


def _encode(
    messages: Sequence[Mapping[str, str]], answers: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Encoded:
    """Tokenise a chat prompt and its possible answers, by the model's chat template where it has one."""
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(
            [dict(one) for one in messages], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer(str(text), add_special_tokens=False)["input_ids"]
    else:
        text = "\n\n".join(one["content"] for one in messages) + "\n\n"
        prompt = tokenizer(text)["input_ids"]
    return [(list(prompt), list(tokenizer(answer, add_special_tokens=False)["input_ids"])) for answer in answers]


def _answer(answers: Sequence[str], logprobs: Sequence[float], model: str) -> Answer:
    """Say the likeliest answer, with the log-probabilities of all of them as one token's `top_logprobs`."""
    ranked = sorted(zip(answers, logprobs, strict=True), key=lambda one: -one[1])
    top: list[dict[str, Any]] = [{"token": token, "logprob": logprob} for token, logprob in ranked]
    return Answer(
        ranked[0][0],
        finish_reason="stop",
        model=model,
        price_usd=0.0,
        logprobs={"content": [{**top[0], "top_logprobs": top}]},
    )


def _length(row: tuple[list[int], list[int]]) -> int:
    return len(row[0]) + len(row[1])


def _positions(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 2**31)


def _parts(encoded: Sequence[Encoded], tokens: int) -> Iterator[range]:
    """Cut prompts, sorted by length, into runs of at most `tokens` (padding included), at least one each."""
    start = 0
    for index, rows in enumerate(encoded):
        size = (index + 1 - start) * len(rows) * max(map(_length, rows))
        if index > start and size > tokens:
            yield range(start, index)
            start = index
    if encoded:
        yield range(start, len(encoded))


def _by_model(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Group jobs that one model and one set of answers serve."""
    groups: dict[tuple[str, str], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.model, str(sorted(request.sampling.items()))), []).append(request)
    yield from groups.values()
