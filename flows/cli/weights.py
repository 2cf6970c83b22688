"""lyra weights: fetch released weights, convert them to safetensors, verify and describe them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import AsJson, choose_json, console, print_json, styled
from lyra_core.escape import for_shell
from lyra_core.weights.manifest import Manifest

app = typer.Typer(name="weights", no_args_is_help=True, help="Fetch, convert, verify and describe model weights.")


@contextmanager
def _progress(title: str, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; silent where the output is JSON or there is no terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    terminal = console(stderr=True)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, disable=as_json or not terminal.is_terminal) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_manifest(manifest: Manifest, directory: Path, as_json: bool) -> None:
    if as_json:
        summary = {**asdict(manifest), "tensors": len(manifest.tensors), "digest": manifest.digest}
        print_json({"directory": str(directory), **summary})
    else:
        console().print(
            styled(
                f"{directory}: {len(manifest.tensors)} tensors, {manifest.parameters:,} parameters, "
                f"{len(manifest.files)} files, digest {manifest.digest[:12]}"
            )
        )


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A set that `lyra weights describe` lists.")],
    dst: Annotated[Path, typer.Argument(help="Directory to fill.")],
    accept_license: Annotated[list[str] | None, typer.Option(help="A restricted license.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a set of weights, or say how to do it by hand."""
    choose_json(as_json)
    from lyra_core.weights.fetch import fetch as fetch_set

    fetched = fetch_set(name, dst, accepted=accept_license or ())
    if as_json:
        print_json({key: str(value) for key, value in asdict(fetched).items()})
    else:
        console().print(styled(f"{name} at {fetched.revision[:12]} is in {fetched.directory}"))
        console().print(styled(f"next: lyra weights convert {for_shell(fetched.entry)} DST --name {for_shell(name)}"))


@app.command()
def convert(
    src: Annotated[Path, typer.Argument(help="What was fetched: a file or a directory.")],
    dst: Annotated[Path, typer.Argument(help="Directory to make.")],
    name: Annotated[str, typer.Option(help="A known set; its keys are checked.")] = "",
    kind: Annotated[str, typer.Option(help="Naming rules, for weights of your own.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="With --kind: JSON of the sizes that differ from the released model's.")
    ] = None,
    speed: Annotated[
        str, typer.Option(help="fast: of a converted lyra2-dit, make the set whose wide layers are 8-bit.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Convert weights to safetensors with a manifest; pickles are read without being trusted."""
    choose_json(as_json)
    if speed:
        if speed != "fast" or name or kind or config is not None:
            raise typer.BadParameter(
                "--speed is fast, and its source a converted set: without --name, --kind, --config"
            )
        from lyra_core.weights.narrow import narrow_set

        with _progress("converting", as_json) as progress:
            _print_manifest(narrow_set(src, dst, progress=progress), dst, as_json)
        return
    if config is not None and not kind:
        raise typer.BadParameter("--config belongs to --kind: the sizes of a known set are known")
    if bool(name) == bool(kind):
        raise typer.BadParameter("give --name (a known set) or --kind (weights of your own)")
    from lyra_core.weights.convert import Labels, convert_set, read_config
    from lyra_core.weights.convert import convert as convert_any

    with _progress("converting", as_json) as progress:
        if name:
            manifest = convert_set(src, dst, name, progress=progress)
        else:
            labels = Labels(name=dst.name, config={} if config is None else read_config(config))
            manifest = convert_any(src, dst, kind, labels=labels, progress=progress)
        _print_manifest(manifest, dst, as_json)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="A converted set.")],
    as_json: AsJson = False,
) -> None:
    """Compare a converted set with its manifest, byte by byte."""
    choose_json(as_json)
    from lyra_core.weights.verify import verify as verify_set

    with _progress("verifying", as_json) as progress:
        _print_manifest(verify_set(directory, progress=progress).manifest, directory, as_json)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A model or a set; without it all sets are listed.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the known sets, the parts of a model, or every tensor of a set, without allocating memory."""
    choose_json(as_json)
    from lyra_core.weights import describe as description
    from lyra_core.weights.model_parts import DESCRIBED_MODELS, describe_model, model_summary
    from lyra_core.weights.registry import LICENSES, WEIGHT_SETS

    if name in DESCRIBED_MODELS or (name and name not in WEIGHT_SETS):
        print_json(asdict(describe_model(name))) if as_json else typer.echo("\n".join(model_summary(name)))
    elif name and as_json:
        print_json(asdict(description.describe(name)))
    elif name:
        typer.echo("\n".join(description.summary(name)))
    elif as_json:
        sets = {key: asdict(item) for key, item in WEIGHT_SETS.items()}
        licenses = {key: asdict(terms) for key, terms in LICENSES.items()}
        print_json({"sets": sets, "licenses": licenses})
    else:
        for item in WEIGHT_SETS.values():
            mark = "restricted: " if LICENSES[item.license].restricted else ""
            home = item.repo_id or "in the package"
            typer.echo(f"{item.name:22} {home:40} {mark}{item.license}")
