"""How a stage runs, as opposed to what it computes: nothing here enters a fingerprint.

Other values give the same results up to the tolerances of the README; they are recorded in the
manifest's volatile part.
"""

from __future__ import annotations

from typing import Literal

from alpaca_farm_core.config.base import Config, Field


class ExecutionConfig(Config):
    """Device, memory and concurrency settings."""

    device: str = Field("auto", description="'auto' takes a CUDA device when there is one, else the CPU.")
    threads: int = Field(0, ge=0, description="CPU threads for torch; 0 = torch's own choice.")
    attention: Literal["auto", "flash_attention_2", "sdpa", "eager"] = Field(
        "auto",
        description="Attention kernel; 'auto' takes flash-attn where usable, then SDPA, then eager.",
    )
    micro_batch_tokens: int = Field(
        16384,
        ge=1,
        description="Tokens (padding included) in one pass; lower it when memory is short.",
    )
    decode_batch_size: int = Field(64, ge=1, description="Rows decoded together.")
    concurrency: int = Field(16, ge=1, description="API calls in flight at once.")
    base_url: str = Field("", description="OpenAI-compatible endpoint; empty = OPENAI_BASE_URL or OpenAI's.")
    reward_url: str = Field("", description="Address that answers are posted to when reward.kind is 'http'.")
    call_timeout_seconds: float = Field(
        120.0, gt=0, description="Longest wait for one try of an API call; slow local judges need more."
    )
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="At least this long between checkpoints of a training stage; 0 = after every step."
    )
