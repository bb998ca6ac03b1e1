"""Pairs to be judged, made from several samples of one policy per instruction.

In: sampled outputs. Out: pairs, in the order in which the instructions first appear.
"""

from __future__ import annotations

from collections.abc import Sequence

from alpaca_farm_core.errors import DataError
from alpaca_farm_core.seeding import stable_random
from alpaca_farm_core.types import Output, Pair


def pair_samples(outputs: Sequence[Output], pairs_per_instruction: int, seed: int) -> list[Pair]:
    """Pair the samples of each instruction; see `match_samples`."""
    return [pair_of(first, second) for first, second in match_samples(outputs, pairs_per_instruction, seed)]


def match_samples(outputs: Sequence[Output], pairs_per_instruction: int, seed: int) -> list[tuple[Output, Output]]:
    """Choose which samples of each instruction are compared.

    Two samples give one pair: sample 0 is output 1, sample 1 is output 2; equal ones stay a pair (a
    tie, which costs no call). Of more than two, repeated texts are left out first, the rest is
    shuffled (seeded by the instruction) and neighbours are paired, so that no sample is used twice; an
    instruction whose samples are all equal gives one pair of equal outputs.

    Args:
        outputs: Samples of one policy.
        pairs_per_instruction: Most pairs per instruction.
        seed: Of the shuffling.

    Raises:
        DataError: no samples at all, or an instruction with a single one.
    """
    if not outputs:
        raise DataError("There are no samples to make pairs from.", "Check the split that was sampled.")
    groups: dict[tuple[str, str], list[Output]] = {}
    for output in outputs:
        groups.setdefault((output.instruction, output.input), []).append(output)
    return [match for group in groups.values() for match in _match_group(group, pairs_per_instruction, seed)]


def pair_of(first: Output, second: Output) -> Pair:
    """Set two outputs for one instruction side by side."""
    return Pair(
        instruction=first.instruction,
        input=first.input,
        output_1=first.output,
        output_2=second.output,
        dataset=first.dataset or second.dataset,
        finished_1=first.finished,
        finished_2=second.finished,
    )


def _match_group(group: list[Output], n_pairs: int, seed: int) -> list[tuple[Output, Output]]:
    samples = sorted(group, key=lambda output: output.sample_id)
    if len(samples) < 2:
        raise DataError(
            f"Only one sample for the instruction {samples[0].instruction[:80]!r}; a pair needs two.",
            "Sample at least two answers per instruction.",
        )
    if len(samples) > 2:
        distinct = list({output.output: output for output in reversed(samples)}.values())[::-1]
        samples = distinct if len(distinct) > 1 else samples[:2]
        if len(samples) > 2:
            stable_random("pairs", seed, samples[0].instruction, samples[0].input).shuffle(samples)
    return list(zip(samples[::2], samples[1::2], strict=False))[:n_pairs]
