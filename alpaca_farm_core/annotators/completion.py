"""Reading a chat completion: plain JSON of unknown quality in, an `Answer` out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alpaca_farm_core.annotators.calls import Answer
from alpaca_farm_core.annotators.retry import BodyError


def read_completion(body: object) -> Answer:
    """Read the JSON body of a chat completion.

    Raises:
        BodyError: it is something else (an HTML page, an error with status 200, half a body).
    """
    try:
        choice = _mapping(_mapping(body)["choices"][0])
        message = _mapping(choice["message"])
        return Answer(
            text=_clean(message.get("content")),
            finish_reason=str(choice.get("finish_reason") or ""),
            usage=dict(_mapping(_mapping(body).get("usage") or {})),
            model=str(_mapping(body).get("model") or ""),
            fingerprint=str(_mapping(body).get("system_fingerprint") or ""),
            refusal=_clean(message.get("refusal")),
            logprobs=choice.get("logprobs"),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise BodyError(f"no chat completion in the body: {type(error).__name__} {error}") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _clean(text: Any) -> str:
    """Text as valid Unicode (a lone surrogate cannot be written to a file)."""
    if text is not None and not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}")
    return (text or "").encode("utf-8", "replace").decode("utf-8")
