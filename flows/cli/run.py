"""lyra run: photographs in, worlds out."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled, waiting

if TYPE_CHECKING:
    from flows.parameters import GenerateParameters
    from flows.session import Session
    from flows.settings import Settings


def run(
    seeds: Annotated[list[str], typer.Argument(help="Images, folders, globs, URL prefixes or manifests.")],
    out: Annotated[str | None, typer.Option(help="Where worlds go: a path or any URL. (default: ./worlds)")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Parameter set, or package.module:function; see: lyra recipes. (default: mini)")
    ] = None,
    camera_path: Annotated[
        str | None, typer.Option(help="A preset's name, or a camera file (.npz, .json, .parquet).")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames per world: 1 + chunks of the recipe, 1 + 80k of most.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at this many seeds at most.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made; start and write nothing.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers. (default: one per GPU, or by cores and memory)"),
    ] = None,
    ray: Annotated[str | None, typer.Option(help="'local', a cluster's address, or 'off': this process.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe field: --set fps=24")] = None,
    retry_rejects: Annotated[bool, typer.Option("--retry-rejects", help="Try rejected seeds again.")] = False,
    accept_license: Annotated[list[str] | None, typer.Option(help="Accept a restricted license by name.")] = None,
    as_json: AsJson = False,
) -> int:
    """Make the worlds that do not exist yet; run it again to continue or to retry.

    Examples:

      lyra run photos/ --out worlds

      lyra run manifest.csv --out s3://bucket/worlds --camera-path orbit-left --frames 161

      lyra run photo.jpg --dry-run --json
    """
    choose_json(as_json)
    from flows.cli.batch_output import dry_run_report, nothing_to_do, tell_rejects, warn_of_missing_captions
    from flows.parameters import GenerateParameters
    from flows.settings import load_settings

    settings = load_settings({"out": out, "recipe": recipe, "workers": workers, **_executor(ray)})
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
        accepted_licenses=list(accept_license or []),
    )
    with _planned(parameters, settings) as session:
        warn_of_missing_captions(session)
        if dry_run:
            return dry_run_report(session, as_json)
        if not session.plan.num_remaining and not session.plan.new_rejects:
            return nothing_to_do(session, as_json)
        session.check_output()
        tell_rejects(session.plan)
        return _generate(session, as_json)


def _executor(ray: str | None) -> dict[str, str]:
    """The settings that --ray stands for."""
    if ray is None:
        return {}
    return {"executor": "inline"} if ray == "off" else {"executor": "ray", "ray_address": ray}


def _planned(parameters: GenerateParameters, settings: Settings) -> Session:
    """Plan with a spinner."""
    from flows.session import Session

    with waiting("planning: reading seeds") as spinner:
        return Session.planned(
            parameters,
            settings,
            on_seed=lambda count: spinner.update(styled(f"planning: {count:,} seeds")),
            tell=lambda notice: console(stderr=True).print(styled(notice)),
        )


def _generate(session: Session, as_json: bool) -> int:
    """Start what is needed, run the flow, and say where everything is."""
    from flows.cli.batch_output import EXIT_REJECTS, print_summary, progress_of

    with _silent_stdout(session), _prefect(session) as ui_url:
        from flows.generate import flow_of

        with progress_of(session):
            summary = flow_of(session)(session.public_parameters)
    code = EXIT_REJECTS if summary.has_rejects else 0
    if as_json:
        print_json({**summary.model_dump(), "out": session.settings.out, "ui_url": ui_url, "exit_code": code})
    else:
        print_summary(summary.model_copy(update={"out": session.settings.out}), ui_url)
    return code


@contextlib.contextmanager
def _silent_stdout(session: Session) -> Iterator[None]:
    """Ray prints news of its workers to standard output, which here holds one JSON document or the summary."""
    from flows.home import private_file

    log = private_file(session.settings.home_path / "logs" / f"{session.run_id}.log")
    with log.open("w", encoding="utf-8", errors="backslashreplace") as sink, contextlib.redirect_stdout(sink):
        yield


@contextlib.contextmanager
def _prefect(session: Session) -> Iterator[str]:
    """A server that records the flow, and its UI's address; the workers load while it starts."""
    from flows.server import launch_server, wait_for_server
    from flows.settings import set_prefect_environment

    settings = session.settings
    server = launch_server(settings.home_path) if settings.prefect_api_url is None else None
    set_prefect_environment(settings, server.api_url if server else str(settings.prefect_api_url))
    ui_url = server.ui_url if server else str(settings.prefect_api_url).removesuffix("/api")
    with waiting(f"starting workers and what records them ({ui_url})"):
        if session.plan.num_remaining:
            session.open_pool()
        importlib.import_module("flows.generate")  # Prefect loads while the workers and the server do
        if server is not None:
            wait_for_server(server, settings.home_path)
    yield ui_url
