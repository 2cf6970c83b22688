"""The table of the mini model (`lyra train table`), its numbers among those of the other benchmarks.

python benchmarks/mini.py --device cuda --views .training/table --out pictures
python benchmarks/mini.py --device cpu --scenes 4 --out pictures                        # a few scenes, on a laptop
"""

from __future__ import annotations

import argparse

from results import RESULTS

from lyra_core.errors import WeightsError
from lyra_core.evaluation import command


def main() -> None:
    parser = argparse.ArgumentParser(description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_options(parser, RESULTS)
    try:
        print(command.measured(parser.parse_args(), lambda line: print(line, flush=True)))
    except WeightsError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
