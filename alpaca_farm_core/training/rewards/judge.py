"""An annotator as online judge: the reward of an answer is the judge's preference for it over an opponent.

The opponent is the reference policy's own answer to the same prompt, drawn with a seed of the prompt alone,
so that every pass meets the same opponent and the call cache answers for equal pairs. A win is 1, a tie
0.5, a loss 0. A pair that the judge cannot decide (refused, unparsable) counts as a tie and is counted.
"""

from __future__ import annotations

from dataclasses import replace

from alpaca_farm_core.annotators.base import Annotator
from alpaca_farm_core.annotators.summary import refuse_too_many_missing
from alpaca_farm_core.errors import AnnotationError
from alpaca_farm_core.generation.sampling import SamplingParams
from alpaca_farm_core.pipeline.progress import Progress
from alpaca_farm_core.seeding import stable_seed
from alpaca_farm_core.training.rewards.asked import Whispered
from alpaca_farm_core.training.rewards.base import Answers, Scores
from alpaca_farm_core.training.rollouts import Sampler
from alpaca_farm_core.types import Pair


class JudgeReward:
    """Rewards of a judge.

    Args:
        annotator: Who judges.
        opponent: Draws the reference policy's answers.
        params: How they are drawn.
        seed: Of the draws.
        max_missing: Largest share of answers that may count as ties because the judge could not decide.
        progress: Where the judge reports.
    """

    def __init__(
        self,
        annotator: Annotator,
        opponent: Sampler,
        params: SamplingParams,
        seed: int,
        max_missing: float,
        progress: Progress,
    ) -> None:
        self._annotator, self._opponent, self._params = annotator, opponent, params
        self.stats = annotator.stats
        self._seed, self._max_missing, self._progress = seed, max_missing, Whispered(progress)

    def __call__(self, answers: Answers) -> Scores:
        """Judge each answer against its opponent."""
        annotations = self._annotator.annotate(self._pairs(answers), self._progress)
        failed = sum(annotation.state == "failed" for annotation in annotations)
        if failed:
            raise AnnotationError(
                f"{failed} of {len(annotations)} answers got no judgement from '{self._annotator.name}'.",
                "Run again: judgements so far are kept, and the run resumes from its last checkpoint.",
            )
        missing = refuse_too_many_missing(annotations, self._max_missing)
        preferences = [1.5 if a.preference is None else a.preference for a in annotations]
        return Scores([preference - 1 for preference in preferences], {"undecided": float(missing)})

    def _pairs(self, answers: Answers) -> list[Pair]:
        asked = answers.responses
        # Equal prompts (a group) share one opponent.
        places: dict[tuple[int, ...], int] = {}
        for prompt in asked.prompt_ids:
            places.setdefault(tuple(prompt), len(places))
        prompts = [list(prompt) for prompt in places]
        seeds = [stable_seed("opponent", self._seed, *prompt) for prompt in prompts]
        drawn = self._opponent.sample(prompts, seeds, self._params)
        order = [places[tuple(prompt)] for prompt in asked.prompt_ids]
        opponents = replace(
            answers,
            responses=replace(
                drawn,
                prompt_ids=asked.prompt_ids,
                response_ids=[drawn.response_ids[place] for place in order],
                finished=[drawn.finished[place] for place in order],
            ),
        )
        return [
            Pair(mine.instruction, mine.input, theirs.output, mine.output, mine.dataset, theirs.finished, mine.finished)
            for mine, theirs in zip(answers.rows(), opponents.rows(), strict=True)
        ]
