"""lyra train: train the mini model, or go on with your own data; the commands of lyra_core.training."""

from __future__ import annotations

import typer


def train(context: typer.Context) -> None:
    """Train the mini model (lyra train --help shows its commands)."""
    from lyra_core.train_commands.app import main

    raise typer.Exit(main(context.args or ["--help"]))
