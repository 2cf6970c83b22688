"""The table of the mini model (`lyra train table`), its numbers among those of the other benchmarks.

python benchmarks/mini.py --device cuda --views .training/table --out pictures
python benchmarks/mini.py --device cpu --scenes 4 --out pictures                        # a few scenes, on a laptop
"""

from __future__ import annotations

import sys

from results import RESULTS

from lyra_core.errors import LyraError
from lyra_core.train_commands.app import main

if __name__ == "__main__":
    try:
        sys.exit(main(["table", "--result", str(RESULTS), *sys.argv[1:]]))
    except LyraError as error:
        raise SystemExit(str(error)) from error
