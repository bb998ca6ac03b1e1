"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

_OPTION_TYPES = ("str", "Sequence[str]", "Sequence[int]")
"""Annotations of a composition's arguments that the command line can give."""

Command = TypeVar("Command", bound=Callable[..., Any])


def store_option(command: Command) -> Command:
    """`--store`: where artifacts are."""
    return click.option(
        "--store", metavar="PATH", help="Folder of the artifact store. Default: $ALPACA_FARM_STORE, else one per user."
    )(command)


def json_option(command: Command) -> Command:
    """`--json`: the answer for a program."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def settings_options(command: Command) -> Command:
    """`--preset`, `--config`, `--set` and `--annotator`: what a study's settings are made of."""
    for option in (
        click.option("--annotator", metavar="NAME|DIR", help="Judge: oracle, a built-in LLM annotator, or a folder."),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="One setting; repeatable."),
        click.option("--config", "config_file", type=click.Path(), help="YAML file with settings."),
        click.option("--preset", default="meadow", show_default=True, help="Settings to start from."),
    ):
        command = option(command)
    return command


def read_overrides(config_file: str | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Join a config file and `--set` values to dotted overrides; `--set` wins."""
    from pathlib import Path

    from alpaca_farm_core.config.overrides import flatten, parse_assignments, read_yaml

    from_file = flatten(read_yaml(Path(config_file))) if config_file else {}
    return {**from_file, **parse_assignments(assignments)}


def read_words(text: str | None) -> tuple[str, ...] | None:
    """Split `a,b,c`; None stays None."""
    return None if text is None else tuple(word.strip() for word in text.split(",") if word.strip())


def read_seeds(text: str | None) -> tuple[int, ...] | None:
    """Read `0,1,2`; None stays None.

    Raises:
        UsageError: one of them is no whole number from 0.
    """
    from alpaca_farm_core.errors import UsageError

    words = read_words(text) or ()
    if not all(word.isdecimal() for word in words):
        raise UsageError(f"--seeds '{text}' is not a list of whole numbers.", "Write them as 0,1,2.")
    return None if text is None else tuple(map(int, words))


def composition_options(flow: str, **given: Any) -> dict[str, Any]:
    """Options that a flow's composition takes, by name; those that were not given are left to it.

    Raises:
        UsageError: the flow has no such option, or there is no such flow.
    """
    import inspect

    from alpaca_farm_core.errors import UsageError
    from flows.compositions import composition_named

    signature = inspect.signature(composition_named(flow))
    taken = [name for name, parameter in signature.parameters.items() if parameter.annotation in _OPTION_TYPES]
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in taken:
            words = [word.replace("_", "-") for word in (name, *taken)]
            raise UsageError(
                f"The flow '{flow}' has no option --{words[0]}.", f"It takes: {', '.join(words[1:]) or 'none'}."
            )
    return options


def print_json(value: Any) -> None:
    """Print JSON to standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False))
