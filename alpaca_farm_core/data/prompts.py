"""Prompt templates: (instruction, input) in, prompt text out; and the same as a chat template.

A template is two texts with the placeholders {instruction} and {input}; which one is used depends on
whether the input is empty. Knows nothing of tokens: BOS belongs to the tokenizer, EOS to the response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from alpaca_farm_core.artifacts.files import read_json, write_json
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import DataError

PROMPT_TEMPLATE_FILE = "prompt_template.json"
CHAT = "chat"
"""Template name that stands for the tokenizer's own chat template (resolved when the model is loaded)."""

_PLACEHOLDER = re.compile(r"\{(instruction|input)\}")
_OTHER_NAMES = {"with_input": "prompt_inputs", "without_input": "prompt_noinputs"}


@dataclass(frozen=True)
class PromptTemplate:
    """Two prompt texts with placeholders.

    Attributes:
        with_input: Used when the input is not empty; holds {instruction} and {input}.
        without_input: Used otherwise; holds {instruction} only.
    """

    with_input: str
    without_input: str

    def __post_init__(self) -> None:
        """Check the placeholders.

        Raises:
            DataError: a placeholder is missing or superfluous.
        """
        for name, wanted in (("with_input", {"instruction", "input"}), ("without_input", {"instruction"})):
            found = set(_PLACEHOLDER.findall(getattr(self, name)))
            if found != wanted:
                raise DataError(
                    f"Prompt template '{name}' has the placeholders {sorted(found)}, it needs {sorted(wanted)}.",
                    "Write them as {instruction} and {input} in the template file.",
                )

    def render(self, instruction: str, input: str) -> str:
        """Return the prompt; braces inside the texts are left alone (one pass of substitution)."""
        values = {"instruction": instruction, "input": input}
        text = self.with_input if input else self.without_input
        return _PLACEHOLDER.sub(lambda match: values[match.group(1)], text)

    def ending_with(self, token: str) -> PromptTemplate:
        """The same prompts with a token as their end."""
        return PromptTemplate(self.with_input + token, self.without_input + token)

    def to_json(self) -> dict[str, str]:
        """Return plain values for JSON."""
        return {"with_input": self.with_input, "without_input": self.without_input}

    @classmethod
    def from_json(cls, data: Any, place: str = "the prompt template") -> PromptTemplate:
        """Build from our own keys or from the keys of AlpacaFarm's files (`prompt_inputs`, `prompt_noinputs`).

        Raises:
            DataError: a text is missing or is not a text; `place` is named.
        """
        if not isinstance(data, Mapping):
            raise DataError(f"{place} is not a JSON object.", "Give an object with 'with_input' and 'without_input'.")
        texts: dict[str, str] = {}
        for name, other in _OTHER_NAMES.items():
            text = data.get(name, data.get(other))
            if not isinstance(text, str):
                raise DataError(
                    f"{place}: field '{name}' (or '{other}') is {'missing' if text is None else 'not a text'}.",
                    "Give an object with 'with_input' and 'without_input'.",
                )
            texts[name] = text
        return cls(**texts)

    def save(self, folder: Path) -> None:
        """Write `prompt_template.json` into `folder`."""
        write_json(folder / PROMPT_TEMPLATE_FILE, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> PromptTemplate:
        """Read `prompt_template.json` of `folder`.

        Raises:
            DataError: the file is missing or malformed.
        """
        path = folder / PROMPT_TEMPLATE_FILE
        return cls.from_json(read_json(path), str(path))

    def chat_template(self, bos: bool = False) -> str:
        """Return the same prompt as a Jinja chat template, for `tokenizer.chat_template`.

        One user turn gives exactly `render(content, message.input or "")`; AlpacaFarm's chat clients
        merge the input into the content, so `input` is an optional extra key. Earlier turns are
        written one after the other, answers closed by EOS; a system turn comes first as plain text.

        Args:
            bos: Begin with the BOS token; wanted when the tokenizer adds BOS to plain text, because
                servers tokenise the rendered chat without special tokens.
        """
        with_input, without_input = self._as_jinja("with_input"), self._as_jinja("without_input")
        user = f"{{%- if message.input %}}{with_input}{{%- else %}}{without_input}{{%- endif %}}"
        return "".join(
            [
                "{{- bos_token }}" if bos else "",
                "{%- for message in messages %}",
                f"{{%- if message.role == 'user' %}}{user}",
                "{%- elif message.role == 'assistant' %}{{- message.content + eos_token }}",
                "{%- else %}{{- message.content + '\\n\\n' }}{%- endif %}",
                "{%- endfor %}",
            ]
        )

    def _as_jinja(self, name: str) -> str:
        """Turn one text into Jinja output expressions (texts as literals, placeholders as variables)."""
        variables = {"instruction": "message.content", "input": "message.input"}
        pieces = _PLACEHOLDER.split(getattr(self, name))
        # re.split with one group alternates text, placeholder, text, …
        expressions = [
            variables[piece] if index % 2 else json.dumps(piece, ensure_ascii=False)
            for index, piece in enumerate(pieces)
        ]
        return "{{- " + " + ".join(expressions) + " }}"


def built_in_templates() -> list[str]:
    """Names of the templates that come with the package."""
    folder = resources.files("alpaca_farm_core.data") / "templates"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_template(name_or_path: str) -> PromptTemplate:
    """Load a built-in template ("alpaca", "plain") or a user's JSON file.

    Raises:
        DataError: no such template, or a malformed file.
    """
    if name_or_path in built_in_templates():
        text = (resources.files("alpaca_farm_core.data") / "templates" / f"{name_or_path}.json").read_text("utf-8")
        return PromptTemplate.from_json(json.loads(text), name_or_path)
    if name_or_path.endswith(".json"):
        return PromptTemplate.from_json(read_json(Path(name_or_path)), name_or_path)
    known = [*built_in_templates(), CHAT]
    raise DataError(
        f"There is no prompt template '{name_or_path}'.",
        f"{did_you_mean(name_or_path, known)} Or give the path of a .json file.",
    )
