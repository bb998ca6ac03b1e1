"""How a stage runs, as opposed to what it computes: nothing here enters a fingerprint.

Other values give the same results up to the tolerances of the README; they are recorded in the
manifest's volatile part.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from alpaca_farm_core.config.base import Config, Field


class EndpointConfig(Config):
    """One place where judges are served, beside others."""

    url: str = Field(min_length=1, description="Address under which /chat/completions lies; it mostly ends in /v1.")
    key_variable: str = Field(
        "OPENAI_API_KEY", min_length=1, description="Environment variable that holds the key; never the key itself."
    )
    concurrency: int = Field(0, ge=0, description="Most calls in flight here; 0 = execution.concurrency.")
    requests_per_minute: int = Field(0, ge=0, description="Most tries begun in any minute; 0 = no limit.")
    tokens_per_minute: int = Field(0, ge=0, description="Most tokens asked for in any minute; 0 = no limit.")
    api_version: str = Field("", description="Azure's api-version, for its addresses without /v1; empty = not Azure.")
    models: dict[str, str] = Field(
        default_factory=dict, description="Model name → its name here, as with Azure deployments."
    )


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
    activation_checkpointing: bool = Field(
        False,
        description="Run each block again in the backward pass instead of keeping it: less memory, a third slower.",
    )
    offload: bool = Field(
        False, description="On a GPU, reference and reward model wait in the machine's memory while others are updated."
    )
    concurrency: int = Field(
        64, ge=1, description="Most API calls in flight at once; fewer while the server pushes back."
    )
    base_url: str = Field("", description="OpenAI-compatible endpoint; empty = OPENAI_BASE_URL or OpenAI's.")
    reward_url: str = Field("", description="Address that answers are posted to when reward.kind is 'http'.")
    endpoints: tuple[EndpointConfig, ...] = Field(
        (), description="Several endpoints or keys that share the calls; empty = base_url alone."
    )
    requests_per_minute: int = Field(0, ge=0, description="Most API tries begun in any minute; 0 = no limit.")
    tokens_per_minute: int = Field(0, ge=0, description="Most API tokens asked for in any minute; 0 = no limit.")
    batch_api: bool = Field(
        False, description="Send calls through the Batch API: about half the price, answers within a day."
    )
    batch_poll_seconds: float = Field(30.0, gt=0, description="Pause between two looks at a batch.")
    budget_usd: float | None = Field(
        None,
        ge=0,
        description="Cap on the run's API spending, over all its resumes; none = no cap; 0 = nothing.",
    )
    budget_account: str = Field("", description="What the spending is booked on; empty = the run's name.")
    allow_unknown_price: bool = Field(
        False, description="Ask models without a known price in spite of a budget; they count as free."
    )
    price_table: str = Field("", description="YAML file with prices of your own, over the built-in ones.")
    call_timeout_seconds: float = Field(
        120.0, gt=0, description="Longest wait for one try of an API call; slow local judges need more."
    )
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="At least this long between checkpoints of a training stage; 0 = after every step."
    )
    own_process: Literal["always", "when_needed"] = Field(
        "always",
        description="Whether training runs in processes of its own: always, or only on a GPU or with several of them.",
    )
    branches: int = Field(
        1,
        ge=1,
        description="Branches of a comparison (its seeds, then its methods) that run side by side, each training in "
        "processes of its own.",
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        (), description="Where training sends its metrics besides metrics.jsonl: tensorboard, wandb, or both."
    )
    tracker_folder: str = Field("", description="Where trackers write; empty = the folder trackers/ of the store.")
    task_runner: Literal["local", "dask", "ray"] = Field(
        "local", description="Where a flow's stages run: in its own process, or on workers of a Dask or Ray cluster."
    )
    cluster: str = Field(
        "", description="Address of that cluster, tcp://host:8786 or ray://host:10001; empty = one started here."
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="With several training processes: each holds the whole model (ddp), or its share of weights, "
        "gradients and optimiser state (fsdp), for models that do not fit one GPU.",
    )
    processes: int = Field(1, ge=1, description="Training processes on each machine: one per GPU.")
    nodes: int = Field(1, ge=1, description="Machines that train together; they need one file system for the store.")
    rendezvous: str = Field("", description="host:port at which several machines meet, on the first of them.")
    deadline_hours: float = Field(
        0.0, ge=0, description="A training stage stops with a checkpoint after so long; 0 = no deadline."
    )
    memory_gb: float = Field(
        0.0,
        ge=0,
        description="A training stage starts only if it is planned to need no more than this; 0 = what the machine "
        "or its GPU has.",
    )
    min_free_gb: float = Field(
        1.0, ge=0, description="A stage starts only if the disk of the store has so much room; 0 = start anyway."
    )

    @model_validator(mode="after")
    def sharded_models_stay_where_they_are(self) -> Self:
        """Refuse to move models between CPU and GPU of which each process holds a share."""
        if self.offload and self.parallel == "fsdp":
            raise ValueError("offload moves whole models, and parallel = 'fsdp' shards them: choose one of the two")
        return self

    @model_validator(mode="after")
    def a_cluster_has_an_address_and_a_kind(self) -> Self:
        """Refuse an address that nothing would use, or that does not look like one."""
        if self.cluster and self.task_runner == "local":
            raise ValueError("cluster is set, but task_runner is 'local': set task_runner to 'dask' or 'ray'")
        if self.cluster and "://" not in self.cluster:
            raise ValueError(f"cluster = '{self.cluster}' is no address such as tcp://host:8786 or ray://host:10001")
        return self

    @model_validator(mode="after")
    def several_machines_need_a_rendezvous(self) -> Self:
        """Refuse several machines that could not find each other."""
        if self.nodes > 1 and not self.rendezvous:
            raise ValueError("with nodes > 1 set rendezvous to host:port of the first machine")
        return self
