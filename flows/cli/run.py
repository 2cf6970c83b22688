"""lyra run: photographs in, worlds out."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import (
    AsJson,
    choose_json,
    console,
    human_bytes,
    human_seconds,
    print_json,
    styled,
    waiting,
)
from lyra_core.escape import for_shell, for_terminal

if TYPE_CHECKING:
    from rich.console import Console

    from flows.parameters import GenerateParameters
    from flows.report import BatchSummary
    from flows.settings import Settings
    from lyra_core.formats.store import Store
    from tasks.outcome import Outcome
    from tasks.plan import Plan
    from tasks.recipe import Recipe

EXIT_REJECTS = 3


def run(
    seeds: Annotated[list[str], typer.Argument(help="Images, folders, globs, URL prefixes or manifests.")],
    out: Annotated[
        str | None,
        typer.Option(help="Where worlds go: a path or any fsspec URL. (default: ./worlds)"),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A named parameter set; see: lyra recipes. (default: mini)"),
    ] = None,
    camera_path: Annotated[
        str | None, typer.Option(help="A preset's name, or a camera file (.npz, .json, .parquet).")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames per world: 1 + 80k.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at this many seeds at most.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made; start and write nothing.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers. (default: one per GPU, or by cores and memory)"),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(help="'local', a cluster's address, or 'off' to run in this process."),
    ] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe field: --set fps=24")] = None,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Try rejected seeds again.")] = False,
    accept_licence: Annotated[list[str] | None, typer.Option(help="Accept a restricted licence by name.")] = None,
    as_json: AsJson = False,
) -> int:
    """Make the worlds that do not exist yet; run it again to continue or to retry.

    Examples:

      lyra run photos/ --out worlds

      lyra run manifest.csv --out s3://bucket/worlds --camera-path orbit-left --frames 161

      lyra run photo.jpg --dry-run --json
    """
    choose_json(as_json)
    from flows.batch import new_run_id, prepare_plan
    from flows.parameters import GenerateParameters
    from flows.recipes import find_recipe
    from flows.settings import load_settings
    from flows.workforce import plan_workforce
    from lyra_core.public_uri import public_uri

    flags = {"out": out, "recipe": recipe, "workers": workers}
    if ray is not None:
        flags |= {"executor": "inline"} if ray == "off" else {"executor": "ray", "ray_address": ray}
    settings = load_settings(flags)
    assignments = list(assign or [])
    assignments += [f"camera_path={camera_path}"] if camera_path is not None else []
    assignments += [f"num_frames={frames}"] if frames is not None else []
    parameters = GenerateParameters(
        seeds=seeds,
        out=settings.out,
        recipe=settings.recipe,
        assignments=assignments,
        limit=limit,
        retry_rejects=retry_rejects,
        accepted_licenses=list(accept_licence or []),
        run_id=new_run_id(),
    )
    chosen = parameters.resolved_recipe()
    _require_camera_path(chosen)
    with waiting("planning: reading seeds") as spinner:
        store, plan = prepare_plan(
            parameters,
            chosen,
            settings,
            str(parameters.run_id),
            lambda n: spinner.update(styled(f"planning: {n:,} seeds")),
            lambda notice: console(stderr=True).print(styled(notice)),
        )
    _warn_of_missing_captions(plan, chosen)
    if dry_run:
        _print_dry_run(plan, chosen, settings, as_json, find_recipe(parameters.recipe).num_frames)
        plan.discard()
        return 0
    if not plan.num_remaining and not plan.new_rejects:
        plan.discard()
        return _print_nothing_to_do(plan, settings, as_json)
    plan_workforce(settings, max(1, plan.num_remaining))  # a setting that cannot work is told before anything starts
    store.check_writable()
    store.require_conditional_create()
    # Prefect keeps the parameters of a run; the plan holds what is needed to read seeds behind signed URLs.
    shown = {"plan_path": str(plan.path), "seeds": [public_uri(seed) for seed in seeds]}
    return _generate(parameters.model_copy(update=shown), plan, store, settings, as_json)


def _require_camera_path(recipe: Recipe) -> None:
    """Refuse an unknown path at once rather than once per seed."""
    from lyra_core.geometry.requests import request_digest_parts

    request_digest_parts(recipe.camera_path, recipe.num_frames)


def _warn_of_missing_captions(plan: Plan, recipe: Recipe) -> None:
    """Say before hours of work that the network was trained with captions and these worlds have none."""
    if recipe.video is None or recipe.video.captioner != "manifest":
        return
    silent = sum(not spec.prompts for spec in plan.specs())
    if silent:
        console(stderr=True).print(
            styled(
                (f"{silent:,} of {plan.num_remaining:,} worlds have no caption", "yellow"),
                f"; {recipe.model} was trained with captions of 80 to 100 words: add a column 'prompt' to the manifest "
                f"or --set prompt='...'",
            )
        )


def _generate(parameters: GenerateParameters, plan: Plan, store: Store, settings: Settings, as_json: bool) -> int:
    """Start what is needed, run the flow, and say where everything is."""
    from flows.home import open_home, private_file
    from flows.server import Server, launch_server, wait_for_server
    from flows.settings import set_flow_environment

    screen = console(stderr=True)
    server: Server | None = launch_server(settings.home_path) if settings.prefect_api_url is None else None
    set_flow_environment(settings, server.api_url if server else str(settings.prefect_api_url))
    ui_url = server.ui_url if server else str(settings.prefect_api_url).removesuffix("/api")
    log = private_file(open_home(settings.home_path) / "logs" / f"{parameters.run_id}.log")
    # Ray prints news of its workers to standard output, which here holds one JSON document or the summary.
    with (
        log.open("w", encoding="utf-8", errors="backslashreplace") as sink,
        contextlib.redirect_stdout(sink),
        contextlib.ExitStack() as stack,
    ):
        with waiting(f"starting workers and what records them ({ui_url})"):
            if plan.num_remaining:
                _open_workers(parameters, plan, store, settings, screen, stack)
            importlib.import_module("flows.generate")  # Prefect loads while the workers and the server do
            if server is not None:
                wait_for_server(server, settings.home_path)
        summary = _run_with_progress(parameters, plan, screen)
    if as_json:
        print_json(
            {
                **summary.model_dump(),
                "ui_url": ui_url,
                "exit_code": EXIT_REJECTS if summary.has_rejects else 0,
            }
        )
    else:
        _print_summary(summary, ui_url)
    return EXIT_REJECTS if summary.has_rejects else 0


def _open_workers(
    parameters: GenerateParameters,
    plan: Plan,
    store: Store,
    settings: Settings,
    screen: Console,
    stack: contextlib.ExitStack,
) -> None:
    """Let the models load from now on; the flow finds the pool open."""
    from flows.workforce import open_pool, opened_before, plan_workforce, worker_config

    workforce = plan_workforce(settings, plan.num_remaining)
    config = worker_config(parameters.resolved_recipe(), parameters, plan, workforce, store, settings)

    def on_wait(sentence: str) -> None:
        screen.print(styled((sentence, "yellow")))

    stack.enter_context(opened_before(stack.enter_context(open_pool(config, settings, workforce, store, on_wait))))


def _run_with_progress(parameters: GenerateParameters, plan: Plan, screen: Console) -> BatchSummary:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from flows.generate import generate
    from flows.report import listening

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen) as progress:
        bar = progress.add_task("starting workers", total=plan.num_remaining)

        def on_outcome(outcome: Outcome) -> None:
            progress.update(bar, advance=1, description=for_terminal(f"{outcome.spec.name} {outcome.kind}"))
            if outcome.failure is not None:
                progress.console.print(styled(f"rejected {outcome.spec.name}: {outcome.failure.message}"))

        with listening(on_outcome):
            summary = generate(parameters)
        progress.update(bar, description="done")
    return summary


def _print_dry_run(plan: Plan, recipe: Recipe, settings: Settings, as_json: bool, usual_frames: int) -> None:
    """What would be made; the recipe's estimates are of a world of usual_frames, and grow with the frames asked for."""
    from flows.workforce import plan_workforce

    workers = plan_workforce(settings, max(1, plan.num_remaining)).num_workers
    usual_worlds = sum(spec.num_frames for spec in plan.specs()) / usual_frames
    seconds = usual_worlds * recipe.seconds_per_world / workers
    num_bytes = round(usual_worlds * recipe.bytes_per_world)
    if as_json:
        print_json(
            {
                "seeds": plan.num_seeds,
                "existing": plan.num_existing,
                "to_make": plan.num_remaining,
                "duplicates": plan.num_duplicates,
                "rejected": plan.num_rejected,
                "workers": workers,
                "estimated_seconds": round(seconds, 1),
                "estimated_bytes": num_bytes,
                "out": settings.out,
                "recipe": recipe.name,
            }
        )
        return
    screen = console()
    screen.print(styled(f"{plan.num_seeds:,} seeds, recipe ", (recipe.name, "bold"), ", into ", (settings.out, "bold")))
    screen.print(f"  exist already   {plan.num_existing:,}")
    screen.print(f"  would be made   {plan.num_remaining:,}")
    screen.print(f"  duplicates      {plan.num_duplicates:,}")
    screen.print(f"  rejected        {plan.num_rejected:,}")
    screen.print(f"about {human_seconds(seconds)} on {workers} workers, {human_bytes(num_bytes)}; nothing was started")
    for reject in plan.new_rejects[:10]:
        screen.print(styled(f"  would be rejected: {reject.reason}"))


def _print_nothing_to_do(plan: Plan, settings: Settings, as_json: bool) -> int:
    code = EXIT_REJECTS if plan.num_rejected else 0
    if as_json:
        print_json(
            {
                "created": 0,
                "existing": plan.num_existing,
                "duplicates": plan.num_duplicates,
                "rejected": plan.num_rejected,
                "out": settings.out,
                "exit_code": code,
            }
        )
        return code
    screen = console()
    screen.print(
        styled(
            f"nothing to do: all {plan.num_existing:,} worlds exist in ",
            (settings.out, "bold"),
            "; neither Prefect nor Ray was started",
        )
    )
    if plan.num_rejected:
        screen.print(f"{plan.num_rejected:,} seeds are rejected; try them again with --retry-rejects")
    return code


def _print_summary(summary: BatchSummary, ui_url: str) -> None:
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
    lyra, out = "lyra" if shutil.which("lyra") else for_shell(sys.argv[0]), for_shell(summary.out)
    screen.print(styled(f"  {lyra} status {out}"))
    screen.print(styled(f'  {lyra} query {out} "SELECT name, num_splats, psnr_db FROM worlds ORDER BY psnr_db DESC"'))
    screen.print(styled(f"  {lyra} peek {out} {summary.example_world_id or 'WORLD_ID'}"))
