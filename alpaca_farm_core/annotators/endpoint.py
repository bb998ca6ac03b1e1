"""Where a judge is served, and how its refusals are put into words. The key is read, never stored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alpaca_farm_core.errors import AnnotationError, ConfigError

if TYPE_CHECKING:
    from alpaca_farm_core.annotators.retry import Fault
    from alpaca_farm_core.config.execution import ExecutionConfig

OPENAI_URL = "https://api.openai.com/v1"
_KEY_VARIABLE = "OPENAI_API_KEY"
_MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        url: Where `/chat/completions` lies.
        key_variable: Environment variable that holds the key.
        concurrency: Most calls in flight here; 0 = the run's.
        requests_per_minute: Most tries begun in any minute; 0 = no limit.
        tokens_per_minute: Most tokens asked for in any minute; 0 = no limit.
        api_version: Azure's api-version; "" = not Azure, or its address with /v1.
        models: Model name → its name here.
    """

    url: str
    key_variable: str = _KEY_VARIABLE
    concurrency: int = 0
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    api_version: str = ""
    models: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, base_url: str = "") -> Endpoint:
        """Take `base_url`, else OPENAI_BASE_URL, else OpenAI's own.

        Raises:
            ConfigError: not an http(s) URL.
        """
        return cls(_checked(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL))

    @classmethod
    def all_of(cls, execution: ExecutionConfig) -> tuple[Endpoint, ...]:
        """Return the endpoints of a run: those listed, else the one of `find`.

        Raises:
            ConfigError: not an http(s) URL, or endpoints beside settings that they would replace.
        """
        if not execution.endpoints:
            limits = (execution.requests_per_minute, execution.tokens_per_minute)
            return (cls(cls.find(execution.base_url).url, _KEY_VARIABLE, 0, *limits),)
        if execution.base_url or execution.requests_per_minute or execution.tokens_per_minute:
            raise ConfigError(
                "execution.endpoints stands beside execution.base_url or limits per minute, which it would replace.",
                "Write address and limits into the endpoints.",
            )
        return tuple(cls(**{**dict(config), "url": _checked(config.url)}) for config in execution.endpoints)

    @property
    def name(self) -> str:
        """The endpoint as shown to people; the variable tells several keys of one server apart."""
        return self.url if self.key_variable == _KEY_VARIABLE else f"{self.url} ({self.key_variable})"

    def api_key(self) -> str:
        """Return the key from the environment; other servers than OpenAI's may go without.

        Raises:
            AnnotationError: no key where one is needed.
        """
        key = self._key()
        own = self.url.startswith(OPENAI_URL.removesuffix("/v1"))
        if not key and (own or self.api_version or self.key_variable != _KEY_VARIABLE):
            raise AnnotationError(
                f"No API key: {self.key_variable} is not set, and {self.url} needs one.",
                f"export {self.key_variable}=…, or point execution.base_url at a server of your own, "
                "or take annotator.name=oracle, which needs neither.",
            )
        return key or "none"

    def redact(self, message: str) -> str:
        """Shorten a server's words and take the key out of them, as some servers echo it."""
        key = self._key()
        clean = message.replace(key, "***") if key else message
        return clean if len(clean) <= _MESSAGE_LENGTH else clean[:_MESSAGE_LENGTH] + "…"

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

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


def _checked(url: str) -> str:
    url = url.strip().rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"'{url}' is not an HTTP address.", "Write it like http://127.0.0.1:8000/v1.")
    return url
