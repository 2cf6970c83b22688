"""The command `lyra train`, which is also `python -m lyra_core.training`: its subcommands and how they end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from lyra_core.errors import LyraError
from lyra_core.train_commands import clips, lyra2, mini, mini_options, network_options, networks, pack, table, views
from lyra_core.train_commands.options import as_function

# Some releases of typer bring a click of their own: this is the base class of whichever is in use.
UsageProblem: Any = typer.BadParameter.__mro__[2]
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand: its name, the value of its options (whose docstring is its help), and what it does."""

    name: str
    options: type[Any]
    run: Callable[[Any], int | None]


COMMANDS = (
    Command("mini", mini_options.MiniOptions, mini.train),
    Command("vae", network_options.VaeTrainingOptions, networks.vae),
    Command("video", network_options.VideoTrainingOptions, networks.video),
    Command("depth", network_options.DepthTrainingOptions, networks.depth),
    Command("super-resolution", network_options.SuperResolutionOptions, networks.super_resolution),
    Command("views", views.ViewsOptions, views.search),
    Command("depth-views", views.DepthViewsOptions, views.search_depth),
    Command("pack", pack.PackOptions, pack.pack),
    Command("table", table.TableOptions, table.measure),
    Command("card", pack.CardOptions, pack.card),
    Command("lyra2", lyra2.Lyra2Options, lyra2.train),
    Command("check-data", clips.CheckOptions, clips.check),
    Command("export", clips.ExportOptions, clips.export),
)


def build_app(receive: Callable[[Command, Any], object]) -> typer.Typer:
    """The subcommands; `receive` gets the one that is called and its options."""
    app = typer.Typer(
        name="train",
        help="Train the mini model (its autoencoder, then its video network; runs are time-boxed), or fine-tune Lyra 2 "
        "on your own clips.\n\nExample: lyra train mini --out runs/mini --gpus 4",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in COMMANDS:
        # `command` as a default: the loop's variable is another one by the time of the call
        def act(options: Any, command: Command = command) -> object:
            return receive(command, options)

        app.command(command.name)(as_function(command.options, act))
    return app


def parse(arguments: list[str]) -> Any:
    """The options that a command line asks for, without running anything.

    Raises:
        typer.BadParameter: or another usage error of click: an unknown option or a value out of range.
    """
    return build_app(lambda _, options: options)(arguments, prog_name="lyra train", standalone_mode=False)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 2 after wrong usage.

    Raises:
        LyraError: whatever the command could not do.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    app = build_app(lambda command, options: command.run(options))
    try:
        return int(app(arguments, prog_name="lyra train", standalone_mode=False) or 0)
    except UsageProblem as error:
        error.show(file=sys.stderr)
        return int(error.exit_code)
    except typer.Abort:
        return EXIT_INTERRUPTED


def run() -> int:
    """Run the command of this process's arguments; an error of this library is one line of its log."""
    try:
        return main()
    except LyraError as error:
        logging.getLogger("lyra_core.training").error("%s", error)
        return 1
