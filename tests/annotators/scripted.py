"""A judge that knows the pairs it is asked about, whatever the prompt looks like: in process, or over real HTTP.

It finds the instructions in the prompt, sees which output stands first, decides by its taste, and answers in the form
that the prompt's end asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alpaca_farm_core.annotators.broker import Jobs
from alpaca_farm_core.annotators.calls import Answer, Request
from alpaca_farm_core.types import Pair
from tests.annotators.judge_server import JudgeServer, Taste, shorter

Spoil = Callable[[str, list[str]], str]


def seen(prompt: str, pairs: Sequence[Pair]) -> list[tuple[Pair, bool]]:
    """Pairs in the prompt in their order there, each with whether its output 1 is shown first."""
    text = prompt + "\n"
    at = sorted((text.rfind(pair.instruction + "\n"), pair.instruction, pair) for pair in pairs)
    found = []
    for place, _, pair in at:
        if place >= 0:
            first, second = (text.find(output + "\n", place) for output in (pair.output_1, pair.output_2))
            assert first >= 0
            assert second >= 0
            found.append((pair, first < second))
    return found


def speak(prompt: str, pairs: Sequence[Pair], taste: Taste = shorter) -> tuple[str, list[str]]:
    """The judge's words, and its letters in order."""
    letters = []
    for pair, in_order in seen(prompt, pairs):
        shown = (pair.output_1, pair.output_2) if in_order else (pair.output_2, pair.output_1)
        letters.append("ab"[taste(*shown) - 1])
    if not letters:
        return "I see no outputs.", letters
    if prompt.endswith("JSON objects, one per line:"):
        rows = [
            {"example": k, "explanation": f"reason {k}", "better": "ab".index(x) + 1} for k, x in enumerate(letters, 1)
        ]
        return "\n".join(map(json.dumps, rows)), letters
    if prompt.endswith("JSON object:"):
        return json.dumps({"explanation": "reason", "better": "ab".index(letters[0]) + 1}), letters
    if "one line per example" in prompt:
        return "\n".join(f"{k}: Output ({x})" for k, x in enumerate(letters, 1)), letters
    if len(letters) > 1 or (prompt.endswith("\nBetter:") and "## Example 1" in prompt):
        return "\n".join(f"{k}: ({x})" for k, x in enumerate(letters, 1)), letters
    says_output = "Output (a)" in prompt[-80:] or prompt.endswith("Which is better?")
    return (f"Output ({letters[0]})" if says_output else f"({letters[0]})"), letters


class ScriptedJudge:
    """Answers jobs in this process, a batch per transaction; `requests` are all it was asked."""

    def __init__(self, pairs: Sequence[Pair], taste: Taste = shorter, spoil: Spoil | None = None) -> None:
        self._by_instruction = {pair.instruction: pair for pair in pairs}
        self.pairs = pairs
        self.taste = taste
        self.spoil = spoil or (lambda prompt, letters: "")
        self.requests: list[Request] = []

    def work(self, jobs: Jobs) -> None:
        while len(jobs):
            taken = jobs.take(500)
            self.requests += taken
            jobs.commit({request.key: self._answer(request) for request in taken})

    def _answer(self, request: Request) -> Answer:
        prompt = request.messages[-1]["content"]
        text, letters = speak(prompt, self._named(prompt), self.taste)
        said = self.spoil(prompt, letters) or text
        return Answer(said, "stop", model=f"{request.model}-build7", fingerprint="fp_1", price_usd=0.01)

    def _named(self, prompt: str) -> list[Pair]:
        lines = (line.removeprefix("Instruction: ") for line in prompt.split("\n"))
        return [self._by_instruction[line] for line in lines if line in self._by_instruction]


class KnowingServer(JudgeServer):
    """The same over HTTP."""

    def __init__(self, pairs: Sequence[Pair], **options: Any) -> None:
        super().__init__(**options)
        self.pairs = pairs

    def judge(self, body: Mapping[str, Any]) -> str:
        return speak(body["messages"][-1]["content"], self.pairs, self.taste)[0]
