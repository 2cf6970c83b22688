"""The lyra command, one file per subcommand.

Exit codes: 0 everything asked for exists; 1 an error, told in one sentence; 2 wrong usage; 3 finished with rejects;
4 workers kept dying; 130 interrupted; 141 the reader of a pipe left (as `lyra query ... | head` does).
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import typer

from flows.cli.calibrate import calibrate
from flows.cli.card import card
from flows.cli.dataset import dataset
from flows.cli.doctor import doctor
from flows.cli.down import down
from flows.cli.export import export
from flows.cli.gallery import gallery
from flows.cli.garbage import gc
from flows.cli.lineage import lineage
from flows.cli.output import choose_json, leave_pipe, plain_warnings, print_error, ready_streams
from flows.cli.peek import peek
from flows.cli.publish import publish
from flows.cli.query import query
from flows.cli.recipes import recipes
from flows.cli.report import report
from flows.cli.run import run
from flows.cli.simcheck import simcheck
from flows.cli.status import status
from flows.cli.train import train
from flows.cli.up import up
from flows.cli.verify import verify
from flows.cli.weights import app as weights
from lyra_core.errors import ConfigError, LyraError, ManifestError, RecipeError, WorkerError
from lyra_core.escape import for_terminal

# Some releases of typer bring a click of their own: this is the base class of whichever is in use.
UsageProblem: Any = typer.BadParameter.__mro__[2]
EXIT_ERROR, EXIT_USAGE, EXIT_WORKERS, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 4, 130, 141

commands = typer.Typer(
    name="lyra",
    help="Explorable 3D worlds from photographs, by the batch.\n\nExample: lyra run photos/ --out worlds",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run, status, query, peek, gallery, report, lineage, verify, simcheck, export, dataset, gc, card, publish, recipes,
    calibrate, doctor, up, down,
):  # fmt: skip
    commands.command()(command)
commands.command(
    # everything after the name belongs to the training commands, --help too
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)(train)
commands.add_typer(weights)


@commands.callback()
def _root() -> None:
    """Explorable 3D worlds from photographs, by the batch."""


def app(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    ready_streams()
    plain_warnings()
    try:
        code = _exit_code(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_pipe()
        code = EXIT_PIPE
    except SystemExit:
        # click leaves with 1 where a write finds the reader gone, and wraps the stream so that no flush complains.
        if type(sys.stdout).__name__ != "PacifyFlushWrapper":
            raise
        leave_pipe()
        code = EXIT_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        choose_json(False)  # nothing more for standard output
        place = error.filename or "where standard output goes, LYRA_HOME or TMPDIR"
        print_error(f"a disk is full: {(error.strerror or str(error)).lower()} at {place}; free some space there")
        leave_pipe()
        code = EXIT_ERROR
    sys.exit(code)


def _exit_code(arguments: list[str] | None) -> int:
    try:
        code = int(commands(arguments, standalone_mode=False) or 0)
    except UsageProblem as error:
        usage = io.StringIO()
        error.show(file=usage)
        sys.stderr.write(for_terminal(usage.getvalue(), keep_lines=True))
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except LyraError as error:
        print_error(str(error), type(error).__name__)
        if isinstance(error, WorkerError):
            return EXIT_WORKERS
        return EXIT_USAGE if isinstance(error, (ConfigError, RecipeError, ManifestError)) else EXIT_ERROR
    if code == EXIT_INTERRUPTED:
        print_error("interrupted; workers are freed. Run the same command again to continue")
    return code
