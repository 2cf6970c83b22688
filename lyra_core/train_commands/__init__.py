"""The commands of `lyra train`, one file per command: options here, what they start in training and its neighbours.

A command's options are the fields of one frozen value, and its help is that value's docstring. Files of commands import
neither torch nor anything that does until the command runs, so that help is quick.
"""

from lyra_core.extras import require

require("typer", "training from the command line", extra="train")
