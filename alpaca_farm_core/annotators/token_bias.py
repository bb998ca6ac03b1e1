"""AlpacaEval's `tokens_to_favor` and `tokens_to_avoid`, turned into the API's `logit_bias`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from alpaca_farm_core.errors import ConfigError


def logit_bias(texts: Mapping[str, int], model: str) -> dict[str, int]:
    """Return token id → bias, by AlpacaEval's rule.

    Every token of a favoured text is favoured; a text to avoid is avoided if it is a single token, else
    left alone, as its parts are needed elsewhere.

    Args:
        texts: Text → bias; a negative one is to be avoided.
        model: Decides the tokenizer.

    Raises:
        ConfigError: tiktoken is missing, or does not know the model's tokenizer.
    """
    leave_out = "Set annotator.token_bias=false to leave the token lists out"
    if importlib.util.find_spec("tiktoken") is None:
        raise ConfigError(
            "The annotator favours or avoids tokens, which needs the package tiktoken.",
            f"{leave_out}, or run `pip install tiktoken`.",
        )
    import tiktoken

    try:
        encoding = tiktoken.encoding_for_model(model)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"tiktoken has no tokenizer for the model '{model}': {error}", f"{leave_out}, or check the network."
        ) from None
    bias: dict[str, int] = {}
    for text, strength in texts.items():
        tokens = encoding.encode(text)
        if strength > 0 or len(tokens) == 1:
            bias.update(dict.fromkeys(map(str, tokens), strength))
    return bias
