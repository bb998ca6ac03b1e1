"""Reads annotation files in AlpacaEval's schema, grouped by model (and annotator where they must not mix).

In: a JSON list (or JSONL) of objects with `preference`, and usually `instruction`, `input`, `output_1`,
`output_2`, `generator_1`, `generator_2`, `annotator`, `dataset`. Out: one `ModelAnnotations` per model,
column by column, so that a million rows take seconds. Knows the shape of rows, not the meaning of a
preference. Errors name the file, the row and the field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alpaca_farm_core.errors import DataError, UsageError
from alpaca_farm_core.evaluation import annotation_columns as read

POOL, EACH = "pool", "each"
_TEXTS = (
    "instruction",
    "input",
    "output_1",
    "output_2",
    "generator_1",
    "generator_2",
    "annotator",
    "dataset",
)
_EXPLANATION, _PRICE = "explanation", "preference_price_per_example"
_IDENTITY = ("instruction", "input", "output_1", "output_2", "annotator")

Value = TypeVar("Value")


@dataclass(frozen=True)
class ModelAnnotations:
    """The rows of one model, in file order; every list is parallel to `preferences`.

    Attributes:
        model: Its name; with `(annotator)` behind it where one row per annotator was asked for.
        source: The file.
        row_numbers: Places in the file, from 0.
        preferences: Raw values.
        texts: Field → texts or None, for the fields of AlpacaEval's schema.
        groups: Values of the further field that was asked for, as text; None where it was not.
        prices: What each judgement cost in USD, as AlpacaEval writes it; None where no row says.
        n_duplicates: Rows equal to an earlier one in instruction, input, both outputs and annotator.
        n_other_annotators: Rows left out because another annotator wrote them.
    """

    model: str
    source: str
    row_numbers: Sequence[int]
    preferences: Sequence[object]
    texts: Mapping[str, Sequence[str | None]]
    groups: Sequence[str] | None
    prices: Sequence[float | None] | None
    n_duplicates: int
    n_other_annotators: int = 0

    @property
    def lengths(self) -> list[int]:
        """Characters of the model's outputs, of the rows that have one."""
        return [len(text) for text in self.texts["output_2"] if text is not None]

    def both_lengths(self) -> tuple[list[int], list[int]]:
        """Characters of (baseline's, model's) output of every row.

        Raises:
            DataError: a row lacks an output.
        """
        lengths = []
        for name in ("output_1", "output_2"):
            texts = self.texts[name]
            if None in texts:
                row = self.row_numbers[texts.index(None)]
                raise DataError(
                    f"{self.source}, row {row + 1} (from 1): there is no '{name}', whose length is needed.",
                    "Give annotations with both outputs; a length-controlled win rate from --weights needs none.",
                )
            lengths.append([len(text or "") for text in texts])
        return lengths[0], lengths[1]

    @property
    def keys(self) -> list[str]:
        """Content identity of each row's instruction.

        Raises:
            DataError: a row has no instruction.
        """
        instructions = self.texts["instruction"]
        if None in instructions:
            row = self.row_numbers[instructions.index(None)]
            raise DataError(
                f"{self.source}, row {row + 1} (from 1): there is no instruction.",
                "What compares instructions needs the field 'instruction' in every row.",
            )
        return [content_key(text or "", more) for text, more in zip(instructions, self.texts["input"], strict=True)]

    @property
    def annotators(self) -> dict[str, int]:
        """Annotator → number of rows, by name; rows without one under ''."""
        return counts(self.texts["annotator"])

    @property
    def baseline(self) -> str | None:
        """The one `generator_1`, or None where there is none.

        Raises:
            DataError: the rows compare with several baselines.
        """
        names = sorted({name for name in self.texts["generator_1"] if name is not None})
        if len(names) > 1:
            raise DataError(
                f"{self.source}: {self.model} is compared with {len(names)} baselines: {', '.join(names[:5])}.",
                "Score one baseline at a time: give a file for each.",
            )
        return names[0] if names else None

    def without_duplicates(self) -> ModelAnnotations:
        """The same rows, but of equal ones only the first."""
        columns = [self.texts[name] for name in _IDENTITY]
        seen: set[int] = set()
        kept = []
        for place, row in enumerate(zip(*columns, strict=True)):
            identity = hash(row)
            if row[0] is None or identity not in seen:
                kept.append(place)
            seen.add(identity)
        return ModelAnnotations(
            model=self.model,
            source=self.source,
            row_numbers=_take(self.row_numbers, kept),
            preferences=_take(self.preferences, kept),
            texts={name: _take(column, kept) for name, column in self.texts.items()},
            groups=None if self.groups is None else _take(self.groups, kept),
            prices=None if self.prices is None else _take(self.prices, kept),
            n_duplicates=self.n_duplicates,
            n_other_annotators=self.n_other_annotators,
        )


def content_key(instruction: str, input: str | None) -> str:
    """Identity of an instruction: AlpacaEval merges `input` into the instruction, AlpacaFarm does not; equal here."""
    return f"{instruction}\n\n{input}" if input else instruction


def counts(names: Iterable[str | None]) -> dict[str, int]:
    """Name → how often, by name; None counts as ''."""
    found = Counter(names)
    if None in found:
        found[""] += found.pop(None)
    return {name: found[name] for name in sorted(name for name in found if name is not None)}


def read_annotations(path: Path, annotator: str = "", group_field: str = "") -> list[ModelAnnotations]:
    """Read a file and group its rows by `generator_2`, in order of first appearance.

    Args:
        path: The file.
        annotator: Only rows of this annotator; `pool` takes all together, `each` makes one entry per
            annotator. Empty takes all, but refuses a pair of outputs that several annotators judged.
        group_field: A further field to read.

    Raises:
        DataError: missing or malformed file, no rows, a row that is no object or has no `preference`, no
            row of that annotator, or several judgements of one pair.
    """
    with read.no_garbage_collection():
        return _read_groups(path, annotator, group_field)


def _read_groups(path: Path, annotator: str, group_field: str) -> list[ModelAnnotations]:
    table = read.read_columns(path, (*_TEXTS, _EXPLANATION, _PRICE, *([group_field] if group_field else [])))
    for name in _TEXTS:
        read.refuse_other_than_text(table.values[name], name, path)
    columns = _texts(table.values)
    names = _names(columns, path, per_annotator=annotator == EACH)
    wanted = _wanted(columns["annotator"], annotator, path)
    groups = _groups(table, group_field, path) if group_field else None
    prices, identities = _prices(table.values[_PRICE]), _identities(columns)
    found = []
    for model, places in _places(names, wanted).items():
        texts = _Taken(columns, places)
        if not annotator:
            _refuse_second_opinions(texts, model, path)
        found.append(
            ModelAnnotations(
                model=model,
                source=str(path),
                row_numbers=places,
                preferences=_take(table.values[read.PREFERENCE], places),
                texts=texts,
                groups=_take(groups, places) if groups is not None else None,
                prices=_take(prices, places) if prices is not None else None,
                n_duplicates=_duplicates(_take(identities, places)),
                n_other_annotators=0 if wanted is None else names.count(model) - len(places),
            )
        )
    return found


class _Taken(Mapping[str, Sequence[str | None]]):
    """Columns at some places; each is taken when it is first asked for, as most never are."""

    def __init__(self, columns: Mapping[str, Sequence[str | None]], places: Sequence[int]) -> None:
        self._columns, self._places = columns, places
        self._taken: dict[str, Sequence[str | None]] = {}

    def __getitem__(self, name: str) -> Sequence[str | None]:
        if name not in self._taken:
            self._taken[name] = _take(self._columns[name], self._places)
        return self._taken[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _texts(values: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[str | None]]:
    columns = {name: values[name] for name in _TEXTS}
    # Shown, never scored: other tools may keep something else than text under this name.
    columns[_EXPLANATION] = [value if isinstance(value, str) else None for value in values[_EXPLANATION]]
    return columns


def _groups(table: read.Columns, field: str, path: Path) -> list[str]:
    values = table.values[field]
    if values.count(None) == len(values):
        raise UsageError(f"No row of {path} has the field '{field}'.", f"Its fields: {', '.join(table.fields)}.")
    return ["" if value is None else str(value) for value in values]


def _prices(values: Sequence[Any]) -> list[float | None] | None:
    """What each judgement cost in USD; None where no row says."""
    if values.count(None) == len(values):
        return None
    return [float(price) if isinstance(price, (int, float)) and price >= 0 else None for price in values]


def _places(names: Sequence[str], wanted: Sequence[bool] | None) -> dict[str, Sequence[int]]:
    """Model → places of its wanted rows, perhaps none, in order of first appearance."""
    if wanted is None and names.count(names[0]) == len(names):
        return {names[0]: range(len(names))}
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        mine = places.setdefault(name, [])
        if wanted is None or wanted[place]:
            mine.append(place)
    return dict(places)


def _take(values: Sequence[Value], places: Sequence[int]) -> Sequence[Value]:
    return values if len(places) == len(values) else [values[place] for place in places]


def _names(columns: Mapping[str, Sequence[str | None]], path: Path, per_annotator: bool) -> list[str]:
    default = _name_from(path)
    models = [name or default for name in columns["generator_2"]]
    if not per_annotator:
        return models
    return [f"{model} ({annotator or 'none'})" for model, annotator in zip(models, columns["annotator"], strict=True)]


def _wanted(annotators: Sequence[str | None], annotator: str, path: Path) -> list[bool] | None:
    """Mask of the rows of one annotator; None for all rows."""
    if annotator in ("", POOL, EACH):
        return None
    mask = [name == annotator for name in annotators]
    if not any(mask):
        known = ", ".join(name or "(none)" for name in counts(annotators))
        raise UsageError(f"{path} has no row of the annotator '{annotator}'.", f"It has: {known}.")
    return mask


def _refuse_second_opinions(texts: Mapping[str, Sequence[str | None]], model: str, path: Path) -> None:
    """A pool's annotators share the pairs out; two judgements of one pair are two evaluations."""
    names = sorted(name or "(none)" for name in set(texts["annotator"]))
    if len(names) < 2:
        return
    first: dict[int, str | None] = {}
    pairs = zip(*(texts[name] for name in _IDENTITY[:-1]), strict=True)
    for pair, annotator in zip(pairs, texts["annotator"], strict=True):
        if pair[0] is not None and first.setdefault(hash(pair), annotator) != annotator:
            raise DataError(
                f"{path}: several annotators ({', '.join(names[:5])}) judged the same pair of {model}.",
                "Add --annotator NAME for one of them, --annotator each for one row per annotator, or "
                "--annotator pool to count all judgements together.",
            )


def _identities(columns: Mapping[str, Sequence[str | None]]) -> list[int | None]:
    """What tells rows apart, hashed (a set of long texts would double the memory); None without an instruction."""
    rows = zip(*(columns[name] for name in _IDENTITY), strict=True)
    return [None if row[0] is None else hash(row) for row in rows]


def _duplicates(identities: Sequence[int | None]) -> int:
    different = set(identities) - {None}
    return len(identities) - identities.count(None) - len(different)


def _name_from(path: Path) -> str:
    """AlpacaEval keeps `MODEL/annotations.json`; other files are named by their stem."""
    return path.resolve().parent.name if path.stem == "annotations" else path.stem
