"""Reads `configs.yaml` in AlpacaEval's schema and says what of it is used, harmless or not supported.

In: a file. Out: settings of each annotator in it, its call options sorted by purpose, its templates.
Knows nothing of prompts' layout or of parsing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import ConfigError

CONFIG_FILE = "configs.yaml"
LOCAL = "local_logprobs"

_USED_KEYS = frozenset(
    {
        "prompt_template",
        "prompt_templates",
        "fn_completions",
        "completions_kwargs",
        "fn_completion_parser",
        "completion_parser_kwargs",
        "batch_size",
        "is_randomize_output_order",
        "processors_to_kwargs",
        "annotation_column",
    }
)
# Bookkeeping of AlpacaEval that changes no label here: names, links, its own cache and row order. Which part of
# an answer a parser reads (completion_key) follows from the parser; padding is ours.
_HARMLESS_KEYS = frozenset(
    {
        "pretty_name",
        "link",
        "packages",
        "packages_for_which_to_show_version",
        "completion_key",
        "completion_column",
        "is_add_default_processors",
        "is_shuffle",
        "is_store_raw_completions",
        "is_store_missing_annotations",
        "is_reapply_parsing",
        "is_avoid_reannotations",
        "annotation_type",
        "random_seed_keys",
        "random_seed_column",
        "seed",
    }
)
# Options of AlpacaEval's client that are no parameters of the API and change no label.
_CLIENT_OPTIONS = frozenset(
    {
        "model_name",
        "model_role",
        "num_procs",
        "batch_size",
        "requires_chatml",
        "is_strip",
        "is_skip_multi_tokens_to_avoid",
        "price_per_token",
        "client_config_path",
        "client_kwargs",
        "tokens_to_favor",
        "tokens_to_avoid",
        "n_retries",
        "sleep_time",
    }
)
_REFUSED_OPTIONS = frozenset({"n", "stream", "functions", "function_call"})
_SECRET_OPTIONS = frozenset({"api_key", "openai_api_keys", "openai_organization_ids", "openai_api_base"})
# AlpacaEval's own strengths of the two token lists.
_FAVOUR, _AVOID = 7, -100


@dataclass(frozen=True)
class CallOptions:
    """What `fn_completions` and `completions_kwargs` say, by purpose; see `AnnotatorSpec`."""

    served: Literal["api", "local"]
    model: str
    role: str
    sampling: Mapping[str, Any]
    favoured: Mapping[str, int]
    base_url: str


def read_annotators(file: Path) -> dict[str, dict[str, Any]]:
    """Return the settings of each annotator in a file; several of them are a pool.

    Raises:
        ConfigError: missing, no YAML, or no annotators.
    """
    text = _read_text(file, f"Give a folder that holds a {CONFIG_FILE}.")
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}.", "Repair the file.") from None
    if not isinstance(data, dict) or not data or not all(isinstance(value, dict) for value in data.values()):
        raise ConfigError(f"{file} holds no annotator.", "Write the annotator's name and its settings below it.")
    return {str(name): settings for name, settings in data.items()}


def refuse_unsupported(settings: Mapping[str, Any], place: str) -> None:
    """Refuse settings that are unknown or would change the labels in a way that is not supported.

    Raises:
        ConfigError: naming the setting.
    """
    for key in settings:
        if key not in _USED_KEYS | _HARMLESS_KEYS:
            raise ConfigError(f"{place}: setting '{key}' is not supported.", did_you_mean(key, _USED_KEYS))
    if settings.get("annotation_column", "preference") != "preference":
        raise ConfigError(f"{place}: only annotation_column 'preference' is supported.", "Remove the setting.")
    for processor in settings.get("processors_to_kwargs") or {}:
        if processor not in ("ChainOfThoughtProcessor", "PaddingForBatchesProcessor"):
            raise ConfigError(
                f"{place}: processor '{processor}' is not supported.",
                "Remove it; explanations are kept and short batches are filled up without a processor.",
            )


def split_options(settings: Mapping[str, Any], place: str) -> CallOptions:
    """Sort `completions_kwargs` by purpose.

    Raises:
        ConfigError: another client than OpenAI's or ours, no model, a secret, or an unsupported option.
    """
    client = settings.get("fn_completions", "openai_completions")
    if client not in ("openai_completions", LOCAL):
        raise ConfigError(
            f"{place}: fn_completions '{client}' is not supported.",
            f"Use openai_completions, which serves any OpenAI-compatible endpoint (execution.base_url), or {LOCAL}.",
        )
    options = dict(settings.get("completions_kwargs") or {})
    if not options.get("model_name") and not options.get("model_role"):
        raise ConfigError(f"{place}: completions_kwargs has no model_name.", "Name the judge model there.")
    client_options = options.get("client_kwargs") or {}
    for key in sorted(_SECRET_OPTIONS & {*options, *client_options}):
        raise ConfigError(
            f"{place}: '{key}' does not belong into a file.", "Remove it; keys and servers come from the environment."
        )
    for key in sorted(_REFUSED_OPTIONS & set(options)):
        raise ConfigError(f"{place}: completions_kwargs.{key} is not supported.", "Remove it.")
    return CallOptions(
        served="local" if client == LOCAL else "api",
        model=str(options.get("model_name") or ""),
        role=str(options.get("model_role") or ""),
        sampling={key: value for key, value in options.items() if key not in _CLIENT_OPTIONS},
        favoured=dict.fromkeys(options.get("tokens_to_favor") or (), _FAVOUR)
        | dict.fromkeys(options.get("tokens_to_avoid") or (), _AVOID),
        base_url=str(client_options.get("base_url") or ""),
    )


def read_templates(settings: Mapping[str, Any], folder: Path, place: str) -> dict[str, tuple[str, str]]:
    """Return with_inputs and without_inputs → (path for errors, text); one template serves both.

    Raises:
        ConfigError: no template is named, or it is not there.
    """
    template = settings.get("prompt_template") or settings.get("prompt_templates")
    if isinstance(template, str):
        template = {"with_inputs": template, "without_inputs": template}
    if not isinstance(template, dict) or set(template) != {"with_inputs", "without_inputs"}:
        raise ConfigError(
            f"{place}: prompt_template must be a file, or with_inputs and without_inputs.", "Name the template file."
        )
    return {role: _read_template(str(name), folder, place) for role, name in template.items()}


def _read_template(name: str, folder: Path, place: str) -> tuple[str, str]:
    """Find a template beside configs.yaml; AlpacaEval writes its path from the parent folder."""
    for root in (folder.parent, folder):
        path = (root / name).resolve()
        if path.is_file() and path.is_relative_to(folder.parent.resolve()):
            return str(path), _read_text(path, "")
    raise ConfigError(f"{place}: there is no template '{name}'.", f"Put it into {folder}.")


def _read_text(path: Path, hint: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Repair the file.") from None
