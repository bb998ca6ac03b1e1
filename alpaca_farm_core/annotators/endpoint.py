"""Where a judge is served, and how its refusals are put into words. The key is read, never stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from alpaca_farm_core.errors import AnnotationError, ConfigError

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.retry import Fault

OPENAI_URL = "https://api.openai.com/v1"
_MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server, by the URL under which `/chat/completions` lies."""

    url: str
    key_variable: ClassVar[str] = "OPENAI_API_KEY"

    @classmethod
    def find(cls, base_url: str = "") -> Endpoint:
        """Take `base_url`, else OPENAI_BASE_URL, else OpenAI's own.

        Raises:
            ConfigError: not an http(s) URL.
        """
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL).strip().rstrip("/")
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"'{url}' is not an HTTP address.", "Write it like http://127.0.0.1:8000/v1.")
        return cls(url)

    @property
    def name(self) -> str:
        """The URL as shown to people."""
        return self.url

    def api_key(self) -> str:
        """Return the key from the environment; other servers than OpenAI's may go without.

        Raises:
            AnnotationError: OpenAI's own server and no key.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not key and self.url.startswith(OPENAI_URL.removesuffix("/v1")):
            raise AnnotationError(
                f"No API key: {self.key_variable} is not set, and {self.url} needs one.",
                f"export {self.key_variable}=…, or point execution.base_url at a server of your own, "
                "or take annotator.name=oracle, which needs neither.",
            )
        return key or "none"

    def redact(self, message: str) -> str:
        """Shorten a server's words and take the key out of them, as some servers echo it."""
        key = os.environ.get(self.key_variable, "").strip()
        clean = message.replace(key, "***") if key else message
        return clean if len(clean) <= _MESSAGE_LENGTH else clean[:_MESSAGE_LENGTH] + "…"

    def explain(self, fault: Fault, model: str) -> AnnotationError:
        """Say what happened and what to do about it; answers already bought are kept."""
        kept = " Answers so far are kept; run again to go on."
        message = self.redact(fault.message)
        match fault.what:
            case "401":
                return AnnotationError(
                    f"{self.url} refused the API key (401): {message}", f"Set {self.key_variable} to a valid key.{kept}"
                )
            case "403":
                return AnnotationError(
                    f"{self.url} forbids this key the model '{model}' (403): {message}",
                    f"Ask for access, or set annotator.model to a model the key may use.{kept}",
                )
            case "404":
                return AnnotationError(
                    f"{self.url} has no model '{model}', or is not an API address (404): {message}",
                    f"Set annotator.model to a model it serves, or execution.base_url (it mostly ends in /v1).{kept}",
                )
            case "no credit":
                return AnnotationError(f"The account behind the key has no credit left: {message}", f"Top it up.{kept}")
            case "connection" | "timeout" | "5xx" | "429" | "body":
                return AnnotationError(
                    f"{self.url} gives no answers ({fault.what}): {message}",
                    f"Check that the server is up and that execution.base_url is right; if it is only slow or "
                    f"limits its callers, lower execution.concurrency.{kept}",
                )
            case _:
                return AnnotationError(
                    f"{self.url} refuses the request to '{model}' ({fault.what}): {message}",
                    f"Check the annotator's completions_kwargs and that the server knows this model.{kept}",
                )
