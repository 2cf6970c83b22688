"""What `lyra run` tells people: estimates, progress, the end of a batch."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.output import console, human_bytes, human_seconds, print_json, styled
from lyra_core.escape import for_shell, for_terminal
from lyra_core.models import MODELS

if TYPE_CHECKING:
    from flows.report import BatchSummary
    from flows.session import Session
    from tasks.outcome import Outcome
    from tasks.plan import Plan

EXIT_REJECTS = 3
SHOWN_REJECTS = 10


def warn_of_missing_captions(session: Session) -> None:
    """Say before hours of work that the network was trained with captions and these worlds have none."""
    recipe, plan = session.recipe, session.plan
    if recipe.captioner != "manifest":
        return
    trained_with = MODELS[recipe.model].native.captions if recipe.model in MODELS else "captions"
    silent = sum(not spec.prompts for spec in plan.specs())
    if silent:
        console(stderr=True).print(
            styled(
                (f"{silent:,} of {plan.num_remaining:,} worlds have no caption", "yellow"),
                f"; {recipe.model} was trained with {trained_with}: add a column 'prompt' to the manifest "
                f"or --set prompt='...'",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a batch would take: workers, seconds until all worlds exist, bytes of their files."""

    workers: int
    seconds: float
    num_bytes: int


def estimated(session: Session) -> Estimate:
    """From the recipe's own estimates, which are of a world of its number of frames and grow with the frames."""
    from flows.recipes import find_recipe

    workers, recipe = session.workers.num_workers, session.recipe
    worlds = sum(spec.num_frames for spec in session.plan.specs()) / find_recipe(session.parameters.recipe).num_frames
    seconds = round(worlds * recipe.seconds_per_world / workers, 1)
    return Estimate(workers=workers, seconds=seconds, num_bytes=round(worlds * recipe.bytes_per_world))


def dry_run_report(session: Session, as_json: bool) -> int:
    """Say what would be made, how long it would take and how big it would be; the exit code."""
    plan, estimate, out = session.plan, estimated(session), session.settings.out
    if as_json:
        print_json(
            {
                "seeds": plan.num_seeds,
                "existing": plan.num_existing,
                "to_make": plan.num_remaining,
                "duplicates": plan.num_duplicates,
                "rejected": plan.num_rejected,
                "workers": estimate.workers,
                "estimated_seconds": estimate.seconds,
                "estimated_bytes": estimate.num_bytes,
                "out": out,
                "recipe": session.recipe.name,
            }
        )
        return 0
    screen = console()
    screen.print(styled(f"{plan.num_seeds:,} seeds, recipe ", (session.recipe.name, "bold"), ", into ", (out, "bold")))
    screen.print(f"  exist already   {plan.num_existing:,}")
    screen.print(f"  would be made   {plan.num_remaining:,}")
    screen.print(f"  duplicates      {plan.num_duplicates:,}")
    screen.print(f"  rejected        {plan.num_rejected:,}")
    duration, size = human_seconds(estimate.seconds), human_bytes(estimate.num_bytes)
    screen.print(f"about {duration} on {estimate.workers} workers, {size}; nothing was started")
    for reject in plan.new_rejects[:SHOWN_REJECTS]:
        screen.print(styled(f"  would be rejected: {reject.reason}"))
    return 0


def nothing_to_do(session: Session, as_json: bool) -> int:
    """Say that everything exists or is rejected; the exit code of that."""
    plan, out = session.plan, session.settings.out
    code = EXIT_REJECTS if plan.num_rejected else 0
    if as_json:
        counts = {"existing": plan.num_existing, "duplicates": plan.num_duplicates, "rejected": plan.num_rejected}
        print_json({"created": 0, **counts, "out": out, "exit_code": code})
        return code
    screen = console()
    sentence = f"nothing to do: all {plan.num_existing:,} worlds exist in "
    screen.print(styled(sentence, (out, "bold"), "; neither Prefect nor Ray was started"))
    unreached = len(plan.unreached)
    if settled := plan.num_rejected - unreached:
        screen.print(f"{settled:,} seeds are rejected; mend them, or try them again with --retry-rejects; the reasons:")
        screen.print(styled(f'  {command_name()} query {for_shell(out)} "SELECT seed_uri, reason FROM rejects"'))
    if unreached:
        screen.print(f"{unreached:,} seeds lie on storage that is at fault; the same command asks for them again")
    return code


def tell_rejects(plan: Plan) -> None:
    """The sentences of the first seeds that planning rejected, before anything starts."""
    screen = console(stderr=True)
    for reject in plan.new_rejects[:SHOWN_REJECTS]:
        screen.print(styled(f"rejected: {reject.reason}"))
    if (more := len(plan.new_rejects) - SHOWN_REJECTS) > 0:
        screen.print(f"rejected: {more:,} more, which the catalog's table rejects will list")


def command_name() -> str:
    """How this user runs the command."""
    return "lyra" if shutil.which("lyra") else for_shell(sys.argv[0])


@contextlib.contextmanager
def progress_of(session: Session) -> Iterator[None]:
    """A bar that the session's outcomes move, with rejects and notices printed above it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as progress:
        bar = progress.add_task("starting workers", total=session.plan.num_remaining)

        def on_outcome(outcome: Outcome) -> None:
            progress.update(bar, advance=1, description=for_terminal(f"{outcome.spec.name} {outcome.kind}"))
            if outcome.failure is not None:
                progress.console.print(styled(f"rejected {outcome.spec.name}: {outcome.failure.message}"))

        session.on_outcome = on_outcome
        session.tell = lambda notice: progress.console.print(styled((notice, "yellow")))
        yield
        progress.update(bar, description="done")


def print_summary(summary: BatchSummary, ui_url: str) -> None:
    """What was made, where it is, and what to type next."""
    screen = console()
    screen.print()
    screen.print(
        styled(
            (f"{summary.created:,} worlds made", "bold green"),
            f", {summary.existing:,} existed, {summary.rejected:,} rejected, in {human_seconds(summary.seconds)}",
        )
    )
    where = str(Path(summary.out).resolve()) if "://" not in summary.out else summary.out
    screen.print(styled(f"worlds   {where}"))
    screen.print(styled(f"watch    {ui_url}"))
    screen.print("next")
    lyra, out = command_name(), for_shell(summary.out)
    screen.print(styled(f"  {lyra} status {out}"))
    screen.print(styled(f'  {lyra} query {out} "SELECT name, num_splats, psnr_db FROM worlds ORDER BY psnr_db DESC"'))
    screen.print(styled(f"  {lyra} peek {out} {summary.example_world_id or 'WORLD_ID'}"))
