"""From a judge's raw answer to preferences, by the parsers of AlpacaEval's schema.

In: the text, and token log-probabilities where the server gave them. Out: one verdict per pair of the
prompt, in order of the answer; [] when nothing could be read. A text is never evaluated as code: Python
literals and JSON only.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import ConfigError

_FENCE = re.compile(r"```(?:json|python)?\s*(.*?)```", re.DOTALL)
_EXPLANATION_KEYS = ("explanation", "concise_explanation", "short_explanation", "reason")
_NUMBER_KEYS = ("number", "example")
_LONGEST_TEXT = 100_000
_MOST_LABELS = 1000


class Verdict(NamedTuple):
    """A preference in [1, 2] of the outputs as shown (1.5 a tie), None when unreadable, and what was said with it.

    Attributes:
        preference: The judgement.
        explanation: The judge's reason; "" when it gave none.
        number: The number of the example that the judge says it is about; None when it says none.
    """

    preference: float | None
    explanation: str = ""
    number: int | None = None


class Said(NamedTuple):
    """What a parser reads: the answer's text, and its log-probabilities in the API's layout (None without)."""

    text: str
    logprobs: Any = None


Parser = Callable[[Said], list[Verdict]]
Reader = Callable[[Any], list[Any]]
"""One step of parsing: a raw value (text, log-probabilities, or an earlier step's value) → values, [] unreadable."""


def regex_parser(outputs_to_match: Mapping[Any, str]) -> Reader:
    """Emit the label whose pattern matches earliest, cut the text after the match, and go on.

    Args:
        outputs_to_match: Label (1, 2; 0 or 1.5 for a tie) → regular expression.

    Raises:
        ConfigError: a label is no preference, or a pattern does not compile or matches nothing at all.
    """
    patterns = [(_label(label), _compiled(pattern)) for label, pattern in outputs_to_match.items()]

    def read(value: Any) -> list[Any]:
        text = value[:_LONGEST_TEXT] if isinstance(value, str) else ""
        labels: list[float] = []
        while len(labels) < _MOST_LABELS:
            matches = [(match.start(), match.end(), label) for label, p in patterns if (match := p.search(text))]
            if not matches:
                return labels
            _, end, label = min(matches)
            labels.append(label)
            text = text[end:]
        return labels

    return read


def lmsys_parser() -> Reader:
    """Read two scores from the first line; the higher one wins, equal ones are a tie (FastChat's format)."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, str):
            return []
        words = value.split("\n", 1)[0].replace(",", " ").split()
        try:
            scores = [float(word) for word in words]
        except ValueError:
            return []
        if len(scores) != 2 or not all(map(math.isfinite, scores)):
            return []
        return [1.5 if scores[0] == scores[1] else 1.0 if scores[0] > scores[1] else 2.0]

    return read


def ranking_parser(model_1_name: str = "model_1") -> Reader:
    """Read a list of {'model': …, 'rank': …}; the rank of model 1 is the preference (rank 1: output 1 wins)."""

    def read(value: Any) -> list[Any]:
        ranking = _literal(_unfenced(value)) if isinstance(value, str) else value
        if not isinstance(ranking, list):
            return []
        ranks = [row.get("rank") for row in ranking if isinstance(row, dict) and row.get("model") == model_1_name]
        return [float(rank) if rank in (1, 2) else None for rank in ranks]

    return read


def json_parser(annotation_key: str | None = None) -> Reader:
    """Read an object, or a list of objects, and take `annotation_key` of each (None: each as it is)."""

    def read(value: Any) -> list[Any]:
        found = _json(value) if isinstance(value, str) else value
        rows = found if isinstance(found, list) else [found]
        if annotation_key is None:
            return [row for row in rows if row is not None]
        return [row[annotation_key] for row in rows if isinstance(row, dict) and annotation_key in row]

    return read


def eval_parser() -> Reader:
    """Read a Python literal; a list gives one value per entry. Nothing is ever executed."""

    def read(value: Any) -> list[Any]:
        found = _literal(_unfenced(value)) if isinstance(value, str) else value
        return found if isinstance(found, list) else [] if found is None else [found]

    return read


def replace_parser(replacer: Mapping[Any, Any], default_replacer: Any = "auto") -> Reader:
    """Replace a value by its entry in `replacer`; without one it stays ("auto") or becomes `default_replacer`."""
    table = dict(replacer.items())

    def read(value: Any) -> list[Any]:
        known = table.get(value) if isinstance(value, (str, int, float, bool)) else None
        return [known if known is not None else value if default_replacer == "auto" else default_replacer]

    return read


def logprob_parser(
    numerator_token: str,
    denominator_tokens: Sequence[str],
    is_binarize: bool = True,
    log_prob_index: int | str = "batch",
) -> Reader:
    """Read the share of probability that the judge's next token gives to the first output.

    P = p(numerator) / Σ p(denominators), over the tokens among the server's `top_logprobs`; one that is not
    among them counts as 0. The preference is 2 − P: 1 where all weight is on the first output (AlpacaEval 2.0).

    Args:
        numerator_token: Says that the first output is better.
        denominator_tokens: All valid answers, the numerator among them.
        is_binarize: 1 when the numerator is likelier than every other one, else 2.
        log_prob_index: "batch" (the k-th token judges the k-th pair), or the place of the one token to read.
    """
    others = [token for token in denominator_tokens if token != numerator_token]

    def preference(top: Any) -> float | None:
        found = {entry["token"]: float(entry["logprob"]) for entry in top if entry["token"] in denominator_tokens}
        if not found:
            return None
        first = found.get(numerator_token, -math.inf)
        if is_binarize:
            return 1.0 if all(first > found.get(token, -math.inf) for token in others) else 2.0
        highest = max(found.values())
        weights = {token: math.exp(value - highest) for token, value in found.items()}
        return 2.0 - weights.get(numerator_token, 0.0) / sum(weights.values())

    def read(value: Any) -> list[Any]:
        try:
            tokens = value["content"]
            chosen = tokens if log_prob_index == "batch" else [tokens[int(log_prob_index)]]
            return [preference(token["top_logprobs"]) for token in chosen]
        except (KeyError, IndexError, TypeError, ValueError):
            return []

    if numerator_token not in denominator_tokens:
        raise ConfigError(
            f"logprob_parser: '{numerator_token}' is not among the denominator_tokens.", "Name all valid answers there."
        )
    return read


def pipeline_meta_parser(parsers_to_kwargs: Mapping[str, Mapping[str, Any]], is_squeeze: bool = True) -> Reader:
    """Apply parsers one after the other: each reads every value of the one before it.

    Args:
        parsers_to_kwargs: Parser → its options, in order.
        is_squeeze: Take a single value of a later parser for itself, not for a list of one.
    """
    readers = [_make_reader(name, options or {}, "pipeline_meta_parser") for name, options in parsers_to_kwargs.items()]
    if not readers:
        raise ConfigError("pipeline_meta_parser: parsers_to_kwargs is empty.", "Name at least one parser.")

    def read(value: Any, depth: int = 0) -> list[Any]:
        values = readers[depth](value)
        if depth + 1 == len(readers):
            return values
        later = [read(one, depth + 1) for one in values]
        return [one[0] if is_squeeze and len(one) == 1 else one or None for one in later]

    return read


PARSERS: dict[str, Callable[..., Reader]] = {
    "regex_parser": regex_parser,
    "lmsys_parser": lmsys_parser,
    "ranking_parser": ranking_parser,
    "json_parser": json_parser,
    "eval_parser": eval_parser,
    "replace_parser": replace_parser,
    "logprob_parser": logprob_parser,
    "pipeline_meta_parser": pipeline_meta_parser,
}


def make_parser(name: str, options: Mapping[str, Any], place: str) -> Parser:
    """Build the parser that an annotator's config names.

    Args:
        name: As in `fn_completion_parser`.
        options: As in `completion_parser_kwargs`.
        place: Where it is named, for errors.

    Raises:
        ConfigError: unknown parser or options that do not fit it.
    """
    read = _make_reader(name, options, place)
    reads_logprobs = name == "logprob_parser" or "logprob_parser" in (options.get("parsers_to_kwargs") or {})

    def parse(said: Said) -> list[Verdict]:
        values = read(said.logprobs if reads_logprobs else said.text)
        notes = _notes(said.text)
        if len(notes) != len(values):
            notes = [Verdict(None)] * len(values)
        return [note._replace(preference=as_preference(value)) for value, note in zip(values, notes, strict=True)]

    return parse


def as_preference(value: Any) -> float | None:
    """Read a label: a number in [1, 2], or 0 for a tie, perhaps written as text; None for all else."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if number == 0:
        return 1.5
    return number if 1 <= number <= 2 else None


def _make_reader(name: str, options: Mapping[str, Any], place: str) -> Reader:
    if name not in PARSERS:
        raise ConfigError(f"{place}: unknown parser '{name}'.", did_you_mean(name, PARSERS))
    try:
        return PARSERS[name](**options)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{place}: {name} cannot take {dict(options)}: {error}.", "Repair it.") from None


def _notes(text: str) -> list[Verdict]:
    """Explanations and example numbers of an answer in JSON, one per object; [] of any other text."""
    if "{" not in text:
        return []
    found = _json(text)
    rows = found if isinstance(found, list) else [found]
    return [_note(row) for row in rows if isinstance(row, dict)]


def _note(row: Mapping[str, Any]) -> Verdict:
    reasons = (row[name] for name in _EXPLANATION_KEYS if isinstance(row.get(name), str))
    numbers = (row[name] for name in _NUMBER_KEYS if type(row.get(name)) is int)
    return Verdict(None, next(reasons, ""), next(numbers, None))


def _label(value: Any) -> float:
    label = as_preference(value)
    if label is None:
        raise ConfigError(f"outputs_to_match: {value!r} is not a preference.", "Use 1, 2, or 1.5 for a tie.")
    return label


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigError(f"outputs_to_match: {pattern!r} is not a pattern: {error}.", "Repair it.") from None
    if compiled.search(""):
        raise ConfigError(f"outputs_to_match: {pattern!r} matches an empty text.", "Make it match something.")
    return compiled


def _unfenced(text: str) -> str:
    fenced = _FENCE.search(text)
    return (fenced.group(1) if fenced else text).strip()


def _literal(text: str) -> Any:
    if len(text) > _LONGEST_TEXT:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _json(text: str) -> Any:
    """Parse the JSON in a text: all of it, what is fenced, or the first object or list in the prose.

    Objects one after the other, on lines of their own or only separated by commas, are read as a list.
    """
    body = _unfenced(text)
    start = min((at for at in (body.find("{"), body.find("[")) if at >= 0), default=-1)
    if start < 0:
        return None
    decoder = json.JSONDecoder()
    rows: list[Any] = []
    while start >= 0:
        try:
            value, end = decoder.raw_decode(body, start)
        except (json.JSONDecodeError, RecursionError):
            break
        if isinstance(value, list) and not rows:
            return value
        rows.append(value)
        following = re.compile(r"[\s,;]*(?=\{)").match(body, end)
        start = following.end() if following else -1
    return None if not rows else rows[0] if len(rows) == 1 else rows
