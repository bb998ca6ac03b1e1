"""A judge's prompt: a template with placeholders, filled in one pass.

In: a text, plain or in the chat layout `<|im_start|>role … <|im_end|>` of AlpacaEval's templates, and
pairs. Out: chat messages. A template names each placeholder once per pair of its batch, as AlpacaEval's
do, or holds one block `{#pairs} … {/pairs}` that is repeated for each pair. The layout is read before
anything is filled in and a text is never scanned again, so braces or chat marks inside an answer stay
what they are: text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.types import Pair

_PLACEHOLDER = re.compile(r"\{(instruction|input|output_1|output_2)\}")
_IN_BLOCK = re.compile(r"\{(instruction|input|output_1|output_2|number)\}")
_BLOCK = re.compile(r"\{#pairs\}(.*?)\{/pairs\}", re.DOTALL)
_IF_INPUT = re.compile(r"\{#input\}(.*?)\{/input\}", re.DOTALL)
_TAG_LINE = re.compile(r"^[ \t]*(\{[#/](?:pairs|input)\})[ \t]*\n", re.MULTILINE)
_TURN = re.compile(r"<\|im_start\|>(?P<head>[^\n]*)\n(?P<content>.*?)<\|im_end\|>", re.DOTALL)
_ROLES = ("system", "user", "assistant")
_NEEDED = ("instruction", "output_1", "output_2")


@dataclass(frozen=True)
class Turn:
    """One message of a template; `name` is an optional speaker."""

    role: str
    content: str
    name: str = ""


@dataclass(frozen=True)
class JudgePrompt:
    """A template for `batch_size` pairs.

    Attributes:
        turns: Its messages, unfilled.
        batch_size: Pairs in one prompt: exactly so many, or with a block at most so many.
        takes_input: Whether the input has a place of its own.
        repeats: Whether it has a block that is repeated for each pair, numbered from 1.
    """

    turns: tuple[Turn, ...]
    batch_size: int
    takes_input: bool
    repeats: bool = False

    @classmethod
    def parse(cls, text: str, batch_size: int, place: str) -> JudgePrompt:
        """Read a template; `place` is named in errors.

        Raises:
            ConfigError: a broken chat layout or block, or placeholders that do not fit the batch size.
        """
        turns = _read_turns(text, place)
        if any("{#pairs}" in turn.content or "{/pairs}" in turn.content for turn in turns):
            return cls(turns, batch_size, _check_block(turns, place), repeats=True)
        counts = Counter(name for turn in turns for name in _PLACEHOLDER.findall(turn.content))
        for name in _NEEDED:
            if counts[name] != batch_size:
                raise ConfigError(
                    f"{place}: placeholder {{{name}}} occurs {counts[name]} times, batch_size is {batch_size}.",
                    "Every pair needs each of {instruction}, {output_1} and {output_2} once.",
                )
        if counts["input"] not in (0, batch_size):
            raise ConfigError(
                f"{place}: placeholder {{input}} occurs {counts['input']} times, batch_size is {batch_size}.",
                "Use it once per pair, or not at all.",
            )
        return cls(turns, batch_size, takes_input=counts["input"] > 0)

    def render(self, pairs: Sequence[Pair]) -> tuple[Mapping[str, str], ...]:
        """Fill in pairs: the k-th occurrence of a placeholder, or the k-th repeat of the block, takes the k-th pair.

        A template without {input} gets the input after the instruction, set off by an empty line.

        Args:
            pairs: Exactly `batch_size`; for a template with a block 1 to `batch_size`.
        """
        assert 1 <= len(pairs) <= self.batch_size
        assert self.repeats or len(pairs) == self.batch_size
        fill = self._fill_blocks(pairs) if self.repeats else self._fill_in_order(pairs)
        messages = []
        for turn in self.turns:
            message = {"role": turn.role, "content": fill(turn.content)}
            messages.append(message | ({"name": turn.name} if turn.name else {}))
        return tuple(messages)

    def _fill_in_order(self, pairs: Sequence[Pair]) -> Callable[[str], str]:
        """Let the k-th occurrence of a placeholder, counted over all turns, take the k-th pair."""
        used: Counter[str] = Counter()

        def value(match: re.Match[str]) -> str:
            name = match.group(1)
            pair = pairs[used[name]]
            used[name] += 1
            return self._text(pair, name)

        return lambda content: _PLACEHOLDER.sub(value, content)

    def _fill_blocks(self, pairs: Sequence[Pair]) -> Callable[[str], str]:
        def repeated(block: re.Match[str]) -> str:
            return "".join(self._block(block.group(1), pair, number) for number, pair in enumerate(pairs, start=1))

        return lambda content: _BLOCK.sub(repeated, content)

    def _block(self, text: str, pair: Pair, number: int) -> str:
        shown = _IF_INPUT.sub(lambda section: section.group(1) if pair.input else "", text)
        return _IN_BLOCK.sub(
            lambda match: str(number) if match.group(1) == "number" else self._text(pair, match.group(1)), shown
        )

    def _text(self, pair: Pair, name: str) -> str:
        if name == "instruction" and pair.input and not self.takes_input:
            return f"{pair.instruction}\n\n{pair.input}"
        return str(getattr(pair, name))


def _check_block(turns: Sequence[Turn], place: str) -> bool:
    """Return whether the block takes the input; refuse a template whose block is not whole."""
    blocks = [block for turn in turns for block in _BLOCK.findall(turn.content)]
    outside = "".join(_BLOCK.sub("", turn.content) for turn in turns)
    if len(blocks) != 1 or "{#pairs}" in outside or "{/pairs}" in outside:
        raise ConfigError(f"{place}: it needs one block {{#pairs}} … {{/pairs}}.", "Open it once and close it once.")
    if stray := _IN_BLOCK.findall(outside):
        raise ConfigError(
            f"{place}: placeholder {{{stray[0]}}} stands outside of {{#pairs}} … {{/pairs}}.", "Move it into the block."
        )
    counts = Counter(_IN_BLOCK.findall(blocks[0]))
    for name in _NEEDED:
        if counts[name] != 1:
            raise ConfigError(
                f"{place}: placeholder {{{name}}} occurs {counts[name]} times in the block.",
                "The block needs each of {instruction}, {output_1} and {output_2} once.",
            )
    if "{#input}" in _IF_INPUT.sub("", blocks[0]) or "{/input}" in _IF_INPUT.sub("", blocks[0]):
        raise ConfigError(f"{place}: {{#input}} … {{/input}} is not whole.", "Open it once and close it once.")
    return counts["input"] > 0


def _read_turns(text: str, place: str) -> tuple[Turn, ...]:
    text = _TAG_LINE.sub(r"\1", text)
    if "<|im_start|>" not in text:
        return (Turn("user", text.strip()),)
    outside = _TURN.sub("", text).strip()
    if outside:
        raise ConfigError(
            f"{place}: text outside of the chat turns: {outside[:60]!r}.",
            "Put every text between <|im_start|>role and <|im_end|>.",
        )
    return tuple(_all_turns(text, place))


def _all_turns(text: str, place: str) -> Iterator[Turn]:
    for match in _TURN.finditer(text):
        role, _, extras = match["head"].strip().partition(" ")
        if role not in _ROLES:
            raise ConfigError(f"{place}: unknown role '{role}'.", f"Use one of {', '.join(_ROLES)}.")
        options = dict(part.split("=", 1) for part in extras.split() if "=" in part)
        yield Turn(role, match["content"].strip(), options.get("name", ""))
