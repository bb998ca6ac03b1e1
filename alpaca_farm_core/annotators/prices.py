"""What a call costs: a dated table of prices per token, and the arithmetic of money.

In: a model name, token counts, a request. Out: whole picodollars (1e-12 US dollars), so that sums are
exact. A model is priced under its exact name or under that name without its date, never by resemblance.
Knows nothing of budgets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from alpaca_farm_core.annotators.calls import Request
from alpaca_farm_core.artifacts.files import canonical_json
from alpaca_farm_core.config.base import did_you_mean
from alpaca_farm_core.errors import ConfigError

TABLE_FILE = Path(__file__).parent / "prices.yaml"
PICO = 10**12
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_TABLE_KEYS = ("as_of", "sources", "batch_factor", "models")
_MODEL_KEYS = ("prompt", "cached", "completion")
# Tokens that a chat template may add per message and per request, generously.
_TEMPLATE_TOKENS = 32


@dataclass(frozen=True)
class Price:
    """Picodollars per token; `batch` is what the Batch API costs, as a share of the rest."""

    prompt: int
    cached: int
    completion: int
    batch: Decimal = Decimal("0.5")

    def of(self, usage: Mapping[str, Any], by_batch: bool = False) -> int | None:
        """Price token counts in OpenAI's form; None when they are absent or senseless."""
        details = usage.get("prompt_tokens_details") or {}
        prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
        cached = count(details.get("cached_tokens") or 0) if isinstance(details, Mapping) else None
        if prompt is None or completion is None or cached is None:
            return None
        cached = min(cached, prompt)
        return self._sum(prompt - cached, cached, completion, by_batch)

    def worst(self, request: Request, by_batch: bool = False) -> int | None:
        """Price the most that one try can cost; None when nothing bounds the answer's length.

        No tokenizer makes more tokens than the text has bytes; what a chat template adds is allowed for.
        """
        longest = longest_answer(request)
        if longest is None and self.completion:
            return None
        return self._sum(most_prompt_tokens(request), 0, longest or 0, by_batch)

    def _sum(self, prompt: int, cached: int, completion: int, by_batch: bool) -> int:
        full = prompt * self.prompt + cached * self.cached + completion * self.completion
        return int((full * self.batch).to_integral_value("ROUND_CEILING")) if by_batch else full


def most_prompt_tokens(request: Request) -> int:
    """Upper bound of a request's prompt tokens, schemas among its parameters included."""
    text = canonical_json([request.messages, request.sampling])
    return len(text.encode("utf-8")) + _TEMPLATE_TOKENS * (len(request.messages) + 1)


def likely_prompt_tokens(request: Request) -> int:
    """Rough guess of a request's prompt tokens (four bytes each)."""
    return sum(len(str(message.get("content", "")).encode()) // 4 + 4 for message in request.messages)


def longest_answer(request: Request) -> int | None:
    """Most tokens that the request lets the judge write, over all its choices; None when unbounded."""
    limits = [request.sampling.get(name) for name in ("max_completion_tokens", "max_tokens")]
    bounds = [limit for limit in limits if isinstance(limit, int)]
    n = request.sampling.get("n")
    return min(bounds) * (n if isinstance(n, int) else 1) if bounds else None


class PriceTable:
    """Prices by model name.

    Args:
        prices: The prices.
        as_of: When they held, and where they were read.
    """

    def __init__(self, prices: Mapping[str, Price], as_of: str = "") -> None:
        self._prices = dict(prices)
        self.as_of = as_of

    @classmethod
    def load(cls, own: str = "") -> PriceTable:
        """Read the table that comes with the project, and over it the user's `own` file.

        Raises:
            ConfigError: the file is missing or broken; file and key are named.
        """
        prices, as_of = _read(TABLE_FILE)
        if own:
            prices |= _read(Path(own))[0]
        return cls(prices, as_of)

    def find(self, model: str) -> Price | None:
        """Return a model's price, or None when the table does not know it."""
        return self._prices.get(model) or self._prices.get(_DATE.sub("", model))

    def refuse_unknown(self, model: str) -> ConfigError:
        """Say that a model has no price, and what to do about it."""
        return ConfigError(
            f"The price of '{model}' is not known, so a budget cannot be kept. {did_you_mean(model, self._prices)}",
            "Write it into a YAML file (models: {NAME: {prompt: USD per million tokens, completion: …}}; 0 for a "
            "server of your own) and name the file in execution.price_table, or set execution.allow_unknown_price.",
        )


def count(value: Any) -> int | None:
    """Read a token count; None when it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def usd(pico: int) -> float:
    """Picodollars as US dollars."""
    return pico / PICO


def to_pico(dollars: float | Decimal | str) -> int:
    """US dollars as picodollars, rounded down."""
    return int(Decimal(str(dollars)) * PICO)


def _read(path: Path) -> tuple[dict[str, Price], str]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"The price table {path} cannot be read: {error}.", "Check execution.price_table.") from None
    if not isinstance(data, dict) or not isinstance(data.get("models"), dict):
        raise ConfigError(f"The price table {path} has no 'models'.", "Give it the layout of the built-in table.")
    for key in data:
        if key not in _TABLE_KEYS:
            raise ConfigError(f"Unknown key '{key}' in the price table {path}.", did_you_mean(str(key), _TABLE_KEYS))
    batch = _number(path, "batch_factor", data.get("batch_factor", 0.5))
    prices = {str(model): _price(path, str(model), row, batch) for model, row in data["models"].items()}
    return prices, str(data.get("as_of", ""))


def _price(path: Path, model: str, row: Any, batch: Decimal) -> Price:
    if not isinstance(row, dict) or not {"prompt", "completion"} <= row.keys() <= set(_MODEL_KEYS):
        raise ConfigError(
            f"The price of '{model}' in {path} must have prompt, completion and perhaps cached, nothing else.",
            "US dollars per million tokens, for example {prompt: 2.0, cached: 0.5, completion: 8.0}.",
        )
    per_token = {key: int(_number(path, f"{model}.{key}", value) * PICO / 10**6) for key, value in row.items()}
    return Price(per_token["prompt"], per_token.get("cached", per_token["prompt"]), per_token["completion"], batch)


def _number(path: Path, key: str, value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ConfigError(f"'{key}' in {path} is {value!r}, not a price.", "Write a number that is not negative.")
    return number
