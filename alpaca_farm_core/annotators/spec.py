"""LLM annotators as their authors wrote them: a folder with `configs.yaml` in AlpacaEval's schema.

In: the name of a built-in annotator or a folder. Out: one annotator, or a pool where the file holds
several: prompts, model, sampling parameters and parser of each, and a hash of every byte read. Loads no
client. Whatever would change the labels and is not understood is refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from alpaca_farm_core.annotators.config import JudgeModels
from alpaca_farm_core.annotators.parsers import Parser, make_parser
from alpaca_farm_core.annotators.prompts import JudgePrompt
from alpaca_farm_core.annotators.spec_file import (
    CONFIG_FILE,
    read_annotators,
    read_templates,
    refuse_unsupported,
    split_options,
)
from alpaca_farm_core.artifacts.files import canonical_json, sha256_text
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.types import Pair

BUILTIN_FOLDER = Path(__file__).parent / "configs"
Served = Literal["api", "local"]


@dataclass(frozen=True)
class AnnotatorSpec:
    """An LLM annotator, ready to be asked.

    Attributes:
        name: Its key in configs.yaml.
        with_input: Template for pairs with an input.
        without_input: Template for the others (the same one where the author gave one).
        model: The author's judge model, or the one that stands for the author's role.
        sampling: Parameters of the call, as sent.
        favoured: Texts whose tokens AlpacaEval makes likelier (`tokens_to_favor`), and how: token text → bias.
        parser: Reads the answer.
        batch_size: Pairs in one prompt, at most.
        random_order: Whether the outputs are shown in random order (seeded by the instruction).
        served: By an API, or by a model in this process.
        base_url: Server that the author's file names; it is asked only where the user names it too.
        content: sha256 over its settings and templates.
    """

    name: str
    with_input: JudgePrompt
    without_input: JudgePrompt
    model: str
    sampling: Mapping[str, Any]
    favoured: Mapping[str, int]
    parser: Parser
    batch_size: int
    random_order: bool
    served: Served
    base_url: str
    content: str

    def prompt_for(self, pair: Pair) -> JudgePrompt:
        """The template that fits the pair."""
        return self.with_input if pair.input else self.without_input


@dataclass(frozen=True)
class AnnotatorSet:
    """One annotator, or a pool of several.

    Attributes:
        name: The annotator's; of a pool the folder's.
        members: In the file's order.
    """

    name: str
    members: tuple[AnnotatorSpec, ...]

    @cached_property
    def content(self) -> str:
        """sha256 over all members."""
        return sha256_text(canonical_json([[member.name, member.content] for member in self.members]))


def builtin_names() -> tuple[str, ...]:
    """Names of the LLM annotators that come with the package."""
    return tuple(sorted(path.parent.name for path in BUILTIN_FOLDER.glob(f"*/{CONFIG_FILE}")))


def load_set(name: str, models: JudgeModels | None = None) -> AnnotatorSet:
    """Read a built-in annotator or pool, or the folder (or configs.yaml) at a path written with a '/'.

    Args:
        name: Built-in name or path.
        models: What stands for the roles that a file names instead of a model.

    Raises:
        ConfigError: no such annotator, a broken file, or a setting that is not supported.
    """
    folder = _find_folder(name)
    file = folder / CONFIG_FILE
    annotators = read_annotators(file)
    members = tuple(_read_member(*entry, folder, file, models or JudgeModels()) for entry in annotators.items())
    return AnnotatorSet(members[0].name if len(members) == 1 else folder.resolve().name, members)


def load_spec(name: str, models: JudgeModels | None = None) -> AnnotatorSpec:
    """Read the one annotator of a built-in name or folder; errors as `load_set`, and for a pool."""
    found = load_set(name, models)
    if len(found.members) > 1:
        raise ConfigError(f"'{name}' is a pool of {len(found.members)} annotators.", "Name a single annotator.")
    return found.members[0]


def _read_member(
    annotator: str, settings: Mapping[str, Any], folder: Path, file: Path, models: JudgeModels
) -> AnnotatorSpec:
    place = f"{file} ({annotator})"
    refuse_unsupported(settings, place)
    options = split_options(settings, place)
    batch_size = settings.get("batch_size", 1)
    if type(batch_size) is not int or batch_size < 1:
        raise ConfigError(f"{place}: batch_size is {batch_size!r}.", "Give the number of pairs in one prompt.")
    templates = read_templates(settings, folder, place)
    prompts = {role: JudgePrompt.parse(body, batch_size, path) for role, (path, body) in templates.items()}
    content = [annotator, settings, {role: body for role, (_, body) in templates.items()}]
    return AnnotatorSpec(
        name=annotator,
        with_input=prompts["with_inputs"],
        without_input=prompts["without_inputs"],
        model=options.model or models.of_role(options.role, place),
        sampling=options.sampling,
        favoured=options.favoured,
        parser=make_parser(
            settings.get("fn_completion_parser") or "regex_parser",
            settings.get("completion_parser_kwargs") or {},
            place,
        ),
        batch_size=batch_size,
        random_order=bool(settings.get("is_randomize_output_order", True)),
        served=options.served,
        base_url=options.base_url,
        content=sha256_text(canonical_json(_with_text_keys(content))),
    )


def _with_text_keys(value: Any) -> Any:
    """YAML allows numbers as keys, JSON does not; both kinds must not fall together."""
    if isinstance(value, Mapping):
        return {f"{type(key).__name__}:{key}": _with_text_keys(one) for key, one in value.items()}
    return [_with_text_keys(one) for one in value] if isinstance(value, list) else value


def _find_folder(name: str) -> Path:
    if "/" not in name and name in builtin_names():
        return BUILTIN_FOLDER / name
    path = Path(name).expanduser()
    if path.name == CONFIG_FILE and path.is_file():
        return path.parent
    if "/" in name or path.is_dir():
        if not path.is_dir():
            raise ConfigError(f"There is no annotator folder {path}.", f"Give a folder with a {CONFIG_FILE}.")
        return path
    raise ConfigError(f"Unknown annotator '{name}'.", did_you_mean(name, ["oracle", *builtin_names()]))
