"""`python -m lyra_core.training COMMAND`: the commands of `lyra train`, as torchrun and the pipeline start them."""

from __future__ import annotations

import sys

from lyra_core.train_commands.app import run

if __name__ == "__main__":
    sys.exit(run())
