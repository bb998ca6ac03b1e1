"""Model outputs from a file as an artifact, so that whatever made them can be evaluated.

In: a JSON list or JSONL in AlpacaEval's schema (`instruction`, `output`, and perhaps `input`, `generator`,
`dataset`). Out: an outputs artifact whose fingerprint is the file's content, wherever the file lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json, read_jsonl, sha256_file, write_jsonl
from alpaca_farm_core.config.base import Config, Field
from alpaca_farm_core.errors import DataError
from alpaca_farm_core.pipeline.stage import Stage, StageContext, StageResult
from alpaca_farm_core.types import Output

_REPAIR = "Repair that row; a row has the texts 'instruction' and 'output', and perhaps 'input' and 'generator'."
_OPTIONAL = ("input", "generator", "dataset")


class ImportOutputsConfig(Config):
    """How a file of outputs is read; which file decides by its content."""

    generator: str = Field("", description="Name of the model, over the one in the rows; empty = the one in the rows.")
    fallback: str = Field("", description="Name of the model where the rows have none.")


def import_stage(path: Path) -> Stage:
    """The stage that turns one file into an outputs artifact.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path.")
    content = sha256_file(path)

    def run(context: StageContext) -> StageResult:
        config: ImportOutputsConfig = context.config
        rows = read_output_file(path, config.generator, config.fallback)
        write_jsonl(context.output / "outputs.jsonl", (row.to_row() for row in rows))
        return StageResult(metrics={"n_outputs": len(rows), "n_instructions": len({row.id for row in rows})})

    return Stage(
        name="import_outputs",
        version=1,
        config_class=ImportOutputsConfig,
        inputs={},
        output="outputs",
        run=run,
        external=lambda config: {"outputs": content},
        summary="outputs of a model from a file",
    )


def read_output_file(path: Path, generator: str = "", fallback: str = "") -> list[Output]:
    """Read outputs.

    Args:
        path: The file.
        generator: Name to give the model, whatever the rows say.
        fallback: Name where the rows have none; empty takes the file's.

    Raises:
        DataError: missing, empty or malformed file; row and field are named.
    """
    values = list(read_jsonl(path)) if path.suffix == ".jsonl" else read_json(path)
    if not isinstance(values, list):
        raise DataError(
            f"{path} holds a JSON {type(values).__name__}, not a list of outputs.",
            "Give a list of objects with 'instruction' and 'output' each.",
        )
    if not values:
        raise DataError(f"{path} holds no outputs.", "Decode the model first.")
    return [
        _output(row, f"{path}, row {number} (from 1)", generator, fallback or path.stem)
        for number, row in enumerate(values, start=1)
    ]


def _output(row: Any, place: str, generator: str, fallback: str) -> Output:
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: expected an object, got {type(row).__name__}.", _REPAIR)
    texts = {name: _text(row, name, place) for name in ("instruction", "output")}
    texts |= {name: _text(row, name, place) if row.get(name) is not None else "" for name in _OPTIONAL}
    finished = row.get("finished", True)
    return Output(
        instruction=texts["instruction"],
        input=texts["input"],
        output=texts["output"],
        generator=generator or texts["generator"] or fallback,
        dataset=texts["dataset"],
        finished=finished is not False,
    )


def _text(row: Mapping[str, Any], name: str, place: str) -> str:
    if row.get(name) is None:
        fields = ", ".join(map(str, row)) or "none"
        raise DataError(f"{place}: field '{name}' is missing (fields: {fields}).", _REPAIR)
    if not isinstance(row[name], str):
        raise DataError(f"{place}: field '{name}' is {type(row[name]).__name__}, expected a text.", _REPAIR)
    return str(row[name])
