"""Models published as a weight difference: difference and base folder in, a plain Hugging Face folder out.

Tensors are read, added and written one at a time, so memory holds one of them, whatever the model's size.
AlpacaFarm's layout: the difference holds tuned − base, the base having been given rows of mean embeddings
for new tokens first; a reward model's backbone stands under a prefix, its base being a recovered policy.
The sum of all recovered weights must be that of `model_sum.txt`.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.data.prompts import load_template
from alpaca_farm_core.errors import ModelError
from alpaca_farm_core.generation.scoring import READS_EOS

SUM_FILE = "model_sum.txt"
BACKBONE = "backbone_model."
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

ModelKind = Literal["policy", "reward_model"]


@dataclass(frozen=True)
class Recovered:
    """What came of it.

    Attributes:
        kind: What the difference was of.
        n_tensors: Tensors written.
        n_in_full: Those that the difference holds as they are, because the base has none of their shape.
        n_left_out: Tensors of the difference that this kind of model has no place for (a reward model's
            language head; buffers that are computed from the config).
        reward_bias: Bias of the reward head, which the written model leaves out: a constant.
    """

    kind: ModelKind
    n_tensors: int
    n_in_full: int
    n_left_out: int
    reward_bias: float


class Weights:
    """The tensors of a model folder, by name, read when asked for."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._files = _files_of(folder)
        self._folder, self._stack = folder, stack
        self._open: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        """Names, sorted."""
        return iter(sorted(self._files))

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        return self._handle(name).get_tensor(name)  # type: ignore[no-any-return]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        return tuple(self._handle(name).get_slice(name).get_shape())

    def _handle(self, name: str) -> Any:
        file = self._files[name]
        if file not in self._open:
            self._open[file] = self._stack.enter_context(safe_open(self._folder / file, framework="pt"))
        return self._open[file]


def kind_of(diff: Path) -> ModelKind:
    """Tell by the names of its tensors what a difference is of.

    Raises:
        ModelError: it has no safetensors weights.
    """
    return "reward_model" if any(name.startswith(BACKBONE) for name in _files_of(diff)) else "policy"


def recover(diff: Path, base: Path, output: Path, report: Callable[[int, int], None] | None = None) -> Recovered:
    """Write the recovered model into `output`.

    Args:
        diff: Folder of the weight difference: safetensors, config, tokenizer, `model_sum.txt`.
        base: Folder of the base model; of a reward model, the recovered policy that it started from.
        output: Where to write.
        report: Called with (tensors done, tensors in all).

    Raises:
        ModelError: a folder is no model, the models do not fit together, or the sum is another one.
    """
    expected = _expected_sum(diff)
    kind = kind_of(diff)
    with ExitStack() as stack:
        differences, weights = Weights(diff, stack), Weights(base, stack)
        places = {name: place for name in differences if (place := _place(name, kind))}
        _require_related(places, weights, base)
        total, n_in_full, done = 0.0, 0, 0

        def tensors() -> Iterator[tuple[str, Tensor]]:
            nonlocal total, n_in_full, done
            for name, place in sorted(places.items(), key=lambda item: item[1]):
                tensor, added = _recovered(differences.read(name), weights, _base_name(name))
                total += float(tensor.double().sum())
                n_in_full += not added
                done += 1
                if report:
                    report(done, len(places))
                yield place, tensor

        shapes = {place: differences.shape(name) for name, place in places.items()}
        dtype = differences.read(next(iter(places))).dtype
        write_safetensors(output / _SINGLE, shapes, dtype, tensors())
        left_out = [name for name in differences if name not in places]
        for name in left_out:  # they are part of the sum all the same
            total += float(_recovered(differences.read(name), weights, _base_name(name))[0].double().sum())
        bias = float(differences.read("reward_head.bias").sum()) if "reward_head.bias" in differences else 0.0
    _require_sum(total, expected, diff)
    _write_rest(kind, diff, base, output)
    return Recovered(kind, len(places), n_in_full, len(left_out), bias)


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, tensors: Iterator[tuple[str, Tensor]]
) -> None:
    """Write a safetensors file tensor by tensor; they must come in the order of their sorted names.

    The format: length of the header (8 bytes, little-endian), the header as JSON, the data.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in sorted(shapes):
        size = math.prod(shapes[name]) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shapes[name]), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            assert tuple(tensor.shape) == shapes[name]
            stream.write(tensor.to(dtype).contiguous().view(torch.uint8).flatten().numpy().data)


def _recovered(difference: Tensor, weights: Weights, base_name: str) -> tuple[Tensor, bool]:
    """(tensor, whether the base was added to it); new rows of an embedding start from the mean of the old."""
    if base_name not in weights:
        return difference, False
    shape = weights.shape(base_name)
    rows_added = len(shape) == 2 and shape[1:] == tuple(difference.shape[1:]) and shape[0] < difference.shape[0]
    if shape != tuple(difference.shape) and not rows_added:
        return difference, False
    weight = weights.read(base_name).to(difference.dtype)
    if rows_added:
        mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
        weight = torch.cat([weight, mean.expand(difference.shape[0] - shape[0], -1)])
    return difference + weight, True


def _place(name: str, kind: ModelKind) -> str:
    """Name in the written model; "" for what it has no place for."""
    if name.endswith("rotary_emb.inv_freq"):
        return ""
    if kind == "policy":
        return name
    if name == "reward_head.weight":
        return "score.weight"
    return name.removeprefix(BACKBONE) if name.startswith(f"{BACKBONE}model.") else ""


def _base_name(name: str) -> str:
    return name.removeprefix(BACKBONE)


def _files_of(folder: Path) -> dict[str, str]:
    """Tensor name → file of a model folder."""
    if (folder / _INDEX).is_file():
        index: dict[str, str] = read_json(folder / _INDEX)["weight_map"]
        return index
    if (folder / _SINGLE).is_file():
        with safe_open(folder / _SINGLE, framework="pt") as handle:
            return dict.fromkeys(handle.keys(), _SINGLE)
    pickled = " It has .bin files, which are pickles." if list(folder.glob("*.bin")) else ""
    raise ModelError(
        f"{folder} has no safetensors weights.{pickled}",
        "Convert it first: load it with transformers and call `save_pretrained(FOLDER)`; keep its model_sum.txt.",
    )


def _require_related(places: Mapping[str, str], weights: Weights, base: Path) -> None:
    related = [name for name in places if _base_name(name) in weights]
    if len(related) < len(places) / 2:
        raise ModelError(
            f"{base} has only {len(related)} of the {len(places)} tensors of the difference.",
            "Give the base model that the difference was made from; for a reward model, the recovered SFT policy.",
        )


def _expected_sum(diff: Path) -> float:
    path = diff / SUM_FILE
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelError(
            f"{diff} has no readable {SUM_FILE}, against which the weights are checked.", "Download it again, whole."
        ) from None


def _require_sum(found: float, expected: float, diff: Path) -> None:
    if not abs(found - expected) <= 1e-2 + 1e-5 * abs(expected):
        raise ModelError(
            f"The recovered weights sum up to {found:.4f}, but {diff / SUM_FILE} says {expected:.4f}.",
            "Check that the base model is the right one, converted with transformers 4.29 or later, and that no "
            "download is damaged.",
        )


def _write_rest(kind: ModelKind, diff: Path, base: Path, output: Path) -> None:
    """Config, tokenizer and prompt template."""
    described = read_json((diff if kind == "policy" else base) / "config.json")
    if kind == "reward_model":
        name = str(described["architectures"][0]).replace("ForCausalLM", "ForSequenceClassification")
        # Published reward models read the last token of the text, no EOS.
        described |= {"architectures": [name], "num_labels": 1, READS_EOS: False}
        described |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    described.pop("_name_or_path", None)
    write_json(output / "config.json", described)
    for file in (*_TOKENIZER, "generation_config.json"):
        if (diff / file).is_file():
            shutil.copyfile(diff / file, output / file)
    load_template("alpaca").save(output)
