"""What went wrong with an API call, and whether trying again can help.

In: an exception of the `openai` client or of reading a body. Out: a fault of one kind — transient
(try again), permanent (stop the whole run: every call would fail alike) or content (this example
alone). A request too long for the judge's context is content: nothing is cut, as a judge that sees half
an answer judges another one. Pure: sends nothing, sleeps never.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, Literal

import aiohttp
import openai

_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached")
_TOO_LONG = ("context_length_exceeded", "string_above_max_length")
# vLLM, llama.cpp, Ollama and others say it in words only.
_TOO_LONG_WORDS = re.compile(r"maximum context|context (length|window|size)|prompt is too long", re.IGNORECASE)
_FILTERED = ("content_filter", "content_policy_violation")


class BodyError(ValueError):
    """The server answered 200 with something that is no chat completion."""


@dataclass(frozen=True)
class Fault:
    """One failed try.

    Attributes:
        kind: transient, permanent, refused (the content was filtered), too_long (for the model's context)
            or bad (a request that this server does not take; its content may be the reason).
        what: One word for counters: "429", "5xx", "timeout", "connection", "body", or the status.
        message: The server's or the transport's words.
        retry_after_s: Pause that the server asked for; None when it asked for none.
        overloaded: Whether fewer calls at once would help.
        maybe_paid: Whether the provider may ask money for the try, though no answer came.
    """

    kind: Literal["transient", "permanent", "refused", "too_long", "bad"]
    what: str
    message: str
    retry_after_s: float | None = None
    overloaded: bool = False
    maybe_paid: bool = False

    @property
    def group(self) -> Literal["transient", "permanent", "content"]:
        """The counter that the fault belongs to."""
        return self.kind if self.kind in ("transient", "permanent") else "content"


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds of trying again.

    Attributes:
        tries: At most so many tries of one call.
        tries_unreached: The same while no server has answered at all (a wrong address is reported soon).
        first_delay_s: Pause before the second try; doubles with each further one, unless the server is well
            and the call was only unlucky.
        max_delay_s: Longest pause of our own choice (a server's Retry-After may be longer).
        timeout_s: Longest wait for one try, whole body included.
        deadline_s: Longest time for one call, pauses included.
        stop_after: Calls given up in a row, with no answer between them, that stop the run.
    """

    tries: int = 11
    tries_unreached: int = 4
    first_delay_s: float = 0.05
    max_delay_s: float = 30.0
    timeout_s: float = 120.0
    deadline_s: float = 600.0
    stop_after: int = 8

    def delay_s(self, attempt: int, fault: Fault, random: Random) -> float:
        """Pause after try number `attempt` (from 1): exponential, jittered by ±50 %, never below Retry-After."""
        backoff = min(self.max_delay_s, self.first_delay_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        return max(backoff, fault.retry_after_s or 0.0)


def classify(error: Exception) -> Fault:
    """Name the kind of a failed try."""
    if isinstance(error, TimeoutError | openai.APIConnectionError):
        return _classify_transport(error)
    if isinstance(error, openai.APIStatusError):
        return _classify_status(error)
    if isinstance(error, openai.OpenAIError):
        return Fault("permanent", "client", str(error))
    return Fault("transient", "body", str(error), maybe_paid=True)


def _classify_transport(error: Exception) -> Fault:
    """Tell timeouts from lost connections, and whether anything was sent, which may be paid for.

    The asynchronous client's transport is aiohttp under httpx's names, which do not tell a server that hung up
    from one that was not reached; aiohttp's own error does. The batch client's is httpx itself.
    """
    causes = _causes(error)
    origin = next((cause for cause in causes if isinstance(cause, aiohttp.ClientError)), None)
    if origin is not None:
        timed_out = isinstance(origin, TimeoutError)
        sent = not isinstance(origin, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    else:
        timed_out = isinstance(error, TimeoutError | openai.APITimeoutError)
        sent = not any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in causes)
    if timed_out:
        return Fault("transient", "timeout", "no answer in time", overloaded=True, maybe_paid=sent)
    return Fault("transient", "connection", str(origin or error.__cause__ or error), maybe_paid=sent)


def _causes(error: BaseException) -> list[BaseException]:
    return [error, *_causes(error.__cause__)] if error.__cause__ is not None else [error]


def _classify_status(error: openai.APIStatusError) -> Fault:
    code = str(error.code or error.type or "")
    fault = _fault_of(error.status_code, code, error.message)
    return replace(fault, retry_after_s=_retry_after_s(error)) if fault.kind == "transient" else fault


def classify_error_body(status: object, body: object) -> Fault | None:
    """Name the kind of a failed call from its status and its error in OpenAI's form; None without a status."""
    if not isinstance(status, int):
        return None
    error = body.get("error") if isinstance(body, Mapping) else None
    details: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
    return _fault_of(status, str(details.get("code") or details.get("type") or ""), str(details.get("message") or ""))


def _fault_of(status: int, code: str, message: str) -> Fault:
    if status == 429 and code in _NO_CREDIT:
        return Fault("permanent", "no credit", message)
    if status in (408, 409, 425, 429) or status >= 500:
        what = f"{status}" if status < 500 else "5xx"
        return Fault("transient", what, message, overloaded=status in (408, 429, 503, 529))
    if code in _FILTERED:
        return Fault("refused", f"{status}", message)
    if status in (400, 413, 422):
        too_long = status == 413 or code in _TOO_LONG or bool(_TOO_LONG_WORDS.search(message))
        return Fault("too_long" if too_long else "bad", f"{status}", message)
    return Fault("permanent", f"{status}", message)


def _retry_after_s(error: openai.APIStatusError) -> float | None:
    """Read Retry-After (seconds or an HTTP date) or OpenAI's retry-after-ms; None when absent or unreadable."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
