"""Entry point of `alpaca-farm`: groups the commands and turns errors into two lines and an exit code.

Imports no command's machinery: each command loads what it uses when it runs, so that help and
shell completion answer at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

# Name → (module:attribute, help line). The line is repeated here so that help imports nothing.
COMMANDS = {
    "demo": ("flows.cli.run:demo", "Run the full RLHF flow on the embedded default."),
    "run": (
        "flows.cli.run:run",
        "Run a flow: rlhf, compare, evaluate, reevaluate, sft, reward-model, a method, and others.",
    ),
    "up": ("flows.cli.up:up", "Start Prefect's UI, the deployments and workers on this machine."),
    "annotate": ("flows.cli.annotate:annotate", "Label pairs, samples or two models' outputs with a judge."),
    "agreement": ("flows.cli.agreement:agreement", "Measure judges against people, or against each other."),
    "score": ("flows.cli.score:score", "Win rates from saved annotations, without any call."),
    "evaluate": ("flows.cli.evaluate:evaluate", "Judge a model's outputs against a reference's, pair by pair."),
    "leaderboard": ("flows.cli.leaderboard:leaderboard", "A table of models: add, compare, sort, import, export."),
    "artifacts": ("flows.cli.artifacts:artifacts", "List, explain, verify, move and remove artifacts."),
    "cache": ("flows.cli.cache:cache", "Show, carry and prune the answers of judges."),
    "presets": ("flows.cli.config:presets", "List the presets."),
    "config": ("flows.cli.config:config", "Show the settings of a preset, and why they are what they are."),
    "doctor": ("flows.cli.doctor:doctor", "Show what this machine has, and what to do about the rest."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from alpaca_farm_core.config.base import did_you_mean

            raise click.UsageError(f"There is no command '{args[0]}'. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help lines without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="alpaca-farm-flows", prog_name="alpaca-farm")
def cli() -> None:
    """Simulate, train and evaluate methods that learn from human feedback."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code (0 done, 1 failed, 2 usage, 3 budget, 4 missing, 5 alarm)."""
    try:
        with _sigterm_unwinds():
            code = cli.main(args=arguments, standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say_stopped()
        sys.exit(128 + signal.SIGINT)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        sys.exit(_report(error))
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Leave on SIGTERM through the exits of what is running, so that Prefect's own server stops too."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # one sent to the process and one to its group are the same
        _say_stopped()
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_stopped() -> None:
    click.echo("Stopped. Run the same command again to go on from here.", err=True)


def _report(error: Exception) -> int:
    """Show a user's error in two lines; anything else is ours and is raised as it is."""
    from alpaca_farm_core.errors import FarmError

    if not isinstance(error, FarmError) or os.environ.get("ALPACA_FARM_TRACEBACK"):
        raise error
    click.secho(f"Error: {error.headline}", fg="red", err=True)
    if error.next_action:
        click.echo(f"  → {error.next_action}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
