"""lyra weights: fetch released weights, convert them to safetensors, verify and describe them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lyra_core.errors import LyraError
from lyra_core.weights.manifest import Manifest

app = typer.Typer(
    name="weights", no_args_is_help=True, help="Fetch, convert, verify and describe model weights."
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AcceptOption = Annotated[
    list[str] | None, typer.Option("--accept-licence", help="Accept a restricted licence by name.")
]


@contextmanager
def _failing_with_one_message(as_json: bool) -> Iterator[None]:
    """Turns an expected error into exit code 1 and one message."""
    try:
        yield
    except LyraError as error:
        if as_json:
            _print_json({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            Console(stderr=True).print(
                f"Error: {error}", style="red", markup=False, highlight=False
            )
        raise typer.Exit(1) from error


@contextmanager
def _progress(title: str, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; silent where the output is JSON or no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=1))


@app.command("fetch")
def fetch_command(
    name: Annotated[
        str, typer.Argument(help="A set of weights; `lyra weights describe` lists them.")
    ],
    dst: Annotated[Path, typer.Argument(help="Directory to fill.")],
    accept_licence: AcceptOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a set of weights, or say how to do it by hand."""
    from lyra_core.weights.fetch import fetch

    with _failing_with_one_message(as_json):
        fetched = fetch(name, dst, accepted=accept_licence or ())
        if as_json:
            _print_json({key: str(value) for key, value in asdict(fetched).items()})
        else:
            typer.echo(f"{name} at {fetched.revision[:12]} is in {fetched.directory}")
            typer.echo(f"next: lyra weights convert {fetched.entry} DST --name {name}")


@app.command("convert")
def convert_command(
    src: Annotated[
        Path, typer.Argument(help="A file of torch.save, a distributed checkpoint, or safetensors.")
    ],
    dst: Annotated[Path, typer.Argument(help="Directory to make.")],
    name: Annotated[
        str, typer.Option(help="Which set of weights this is; keys and shapes are checked.")
    ] = "",
    kind: Annotated[
        str, typer.Option(help="For weights of your own: naming rules, without a check.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Convert weights to safetensors with a manifest. Pickles are read in isolation, by an
    allow-list."""
    if bool(name) == bool(kind):
        raise typer.BadParameter("give either --name (a known set) or --kind (weights of your own)")
    from lyra_core.weights.convert import Labels, convert, convert_set

    with _failing_with_one_message(as_json), _progress("converting", as_json) as progress:
        if name:
            manifest = convert_set(src, dst, name, progress=progress)
        else:
            manifest = convert(src, dst, kind, labels=Labels(name=dst.name), progress=progress)
        if as_json:
            _print_json({"directory": str(dst), "digest": manifest.digest, **_summary(manifest)})
        else:
            typer.echo(
                f"{dst}: {len(manifest.tensors)} tensors, {manifest.parameters:,} parameters in "
                f"{len(manifest.files)} files, digest {manifest.digest[:12]}"
            )


@app.command("verify")
def verify_command(
    directory: Annotated[Path, typer.Argument(help="A converted set.")], as_json: JsonOption = False
) -> None:
    """Compare a converted set with its manifest, byte by byte."""
    from lyra_core.weights.verify import verify

    with _failing_with_one_message(as_json), _progress("verifying", as_json) as progress:
        manifest = verify(directory, progress=progress).manifest
        if as_json:
            _print_json(
                {"directory": str(directory), "digest": manifest.digest, **_summary(manifest)}
            )
        else:
            typer.echo(
                f"{directory} is intact: {len(manifest.files)} files, digest {manifest.digest[:12]}"
            )


@app.command("describe")
def describe_command(
    name: Annotated[
        str, typer.Argument(help="A set of weights; without it, all sets are listed.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List the known sets, or every tensor of one, without allocating memory."""
    from lyra_core.weights.registry import LICENCES, WEIGHT_SETS

    with _failing_with_one_message(as_json):
        if name:
            _describe_one(name, as_json)
        elif as_json:
            sets = {key: asdict(item) for key, item in WEIGHT_SETS.items()}
            _print_json(
                {"sets": sets, "licences": {key: asdict(item) for key, item in LICENCES.items()}}
            )
        else:
            table = Table("name", "what", "published at", "licence")
            for item in WEIGHT_SETS.values():
                mark = " (restricted)" if LICENCES[item.licence].restricted else ""
                table.add_row(
                    item.name, item.title, item.repo_id or "this package", item.licence + mark
                )
            Console().print(table)


def _describe_one(name: str, as_json: bool) -> None:
    from lyra_core.weights.describe import describe
    from lyra_core.weights.keys import group_keys

    description = describe(name)
    if as_json:
        _print_json(asdict(description))
        return
    shapes = {
        tensor.name: "x".join(map(str, tensor.shape)) or "scalar" for tensor in description.tensors
    }
    for line in group_keys(shapes, shapes):
        typer.echo(line)
    typer.echo(f"{len(description.tensors)} tensors, {description.parameters:,} parameters")


def _summary(manifest: Manifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "licence": manifest.licence,
        "parameters": manifest.parameters,
        "total_bytes": manifest.total_bytes,
        "tensors": len(manifest.tensors),
        "files": {name: asdict(record) for name, record in manifest.files.items()},
        "ignored": list(manifest.ignored),
    }
